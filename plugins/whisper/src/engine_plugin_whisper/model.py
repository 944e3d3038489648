"""Whisper (Radford et al. 2022): a decoder that writes down what its encoder heard."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import Model, ModelContext, WeightMap
from sdk.interfaces import IntermediateTensors, SupportsEncoderDecoder
from sdk.layers import (
    Activation,
    Attention,
    ColumnParallelLinear,
    CrossAttention,
    LayerNorm,
    MergedColumnParallelLinear,
    ParallelLMHead,
    PositionEmbedding,
    QKVParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
)

from .encoder import WhisperEncoder


class WhisperSelfAttention(nn.Module):
    """Causal multi-head attention: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.qkv_proj = QKVParallelLinear(hidden_size, hidden_size // heads, heads, without_bias=("k_proj",))
        self.attn = Attention(heads, hidden_size // heads)
        self.out_proj = RowParallelLinear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.attn(*self.qkv_proj(x)))


class WhisperCrossAttention(nn.Module):
    """Attention over the encoder's states: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.head_dim = hidden_size // heads
        self.q_proj = ColumnParallelLinear(hidden_size, hidden_size)
        self.kv_proj = MergedColumnParallelLinear(
            hidden_size, [hidden_size] * 2, parts=("k_proj", "v_proj"), without_bias=("k_proj",)
        )
        self.attn = CrossAttention(heads, self.head_dim, self.project)
        self.out_proj = RowParallelLinear(hidden_size, hidden_size)

    def project(self, encoder_states: Tensor) -> tuple[Tensor, Tensor]:
        """`(n, hidden)` → keys and values `(n, heads here, head_dim)`."""
        k, v = self.kv_proj(encoder_states)
        return k.unflatten(-1, (-1, self.head_dim)), v.unflatten(-1, (-1, self.head_dim))

    def forward(self, x: Tensor, encoder_states: Tensor | None) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        return self.out_proj(self.attn(q, encoder_states))


class WhisperDecoderLayer(nn.Module):
    """One pre-norm block: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads = config.decoder_attention_heads
        self.self_attn = WhisperSelfAttention(config.d_model, heads)
        self.self_attn_layer_norm = LayerNorm(config.d_model)
        self.encoder_attn = WhisperCrossAttention(config.d_model, heads)
        self.encoder_attn_layer_norm = LayerNorm(config.d_model)
        self.fc1 = ColumnParallelLinear(config.d_model, config.decoder_ffn_dim)
        self.activation_fn = Activation(config.activation_function)
        self.fc2 = RowParallelLinear(config.decoder_ffn_dim, config.d_model)
        self.final_layer_norm = LayerNorm(config.d_model)

    def forward(self, x: Tensor, encoder_states: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), encoder_states)
        return x + self.fc2(self.activation_fn(self.fc1(self.final_layer_norm(x))))


class WhisperDecoder(nn.Module):
    """Learned positions, blocks, a last norm: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.d_model)
        self.embed_positions = PositionEmbedding(config.max_target_positions, config.d_model)
        self.layers = nn.ModuleList(WhisperDecoderLayer(config) for _ in range(config.decoder_layers))
        self.layer_norm = LayerNorm(config.d_model)

    def forward(self, x: Tensor, positions: Tensor, encoder_states: Tensor | None) -> Tensor:
        x = x + self.embed_positions(positions)
        for layer in self.layers:
            x = layer(x, encoder_states)
        return self.layer_norm(x)


class WhisperForConditionalGeneration(Model, SupportsEncoderDecoder):
    """Whisper, tiny to large-v3 and turbo."""

    weight_map = WeightMap(rename=[(r"^model\.", "")])

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.encoder = WhisperEncoder(ctx=ctx)
        self.decoder = WhisperDecoder(config)
        self.proj_out = ParallelLMHead(config.vocab_size, config.d_model)
        if config.tie_word_embeddings:
            self.proj_out.tie_weights(self.decoder.embed_tokens)

    def encode(self, input_features: Tensor) -> Tensor:
        """Log-mel `(items, mel bins, frames)` → `(items, max_source_positions, hidden)`."""
        states: Tensor = self.encoder(input_features)
        return states

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        embeddings: Tensor = self.decoder.embed_tokens(input_ids)  # scale_embedding means nothing, in transformers too
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        encoder_states: Tensor | None = None,
    ) -> Tensor:
        if inputs_embeds is None:
            assert input_ids is not None, "the engine gives token ids or embeddings"
            inputs_embeds = self.get_input_embeddings(input_ids)
        hidden: Tensor = self.decoder(inputs_embeds, positions, encoder_states)
        return hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        logits: Tensor = self.proj_out(hidden_states)
        return logits

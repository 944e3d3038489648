"""A decoder of pre-norm blocks with interleaved rotary positions, a gated MLP and a tied head (ERNIE 4.5)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import Model, ModelContext
from sdk.layers import (
    ActivationAndMul,
    Attention,
    MergedColumnParallelLinear,
    ParallelLMHead,
    QKVParallelLinear,
    RMSNorm,
    RotaryEmbedding,
    RowParallelLinear,
    VocabParallelEmbedding,
)


class SelfAttention(nn.Module):
    """Causal attention, keys and values shared by groups of heads: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any, rotary: RotaryEmbedding) -> None:
        super().__init__()
        heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.qkv_proj = QKVParallelLinear(config.hidden_size, dim, heads, kv_heads, bias=config.use_bias)
        self.attn = Attention(heads, dim, dim**-0.5, kv_heads, rotary=rotary)
        self.o_proj = RowParallelLinear(heads * dim, config.hidden_size, bias=config.use_bias)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        return self.o_proj(self.attn(q, k, v, positions))


class MLP(nn.Module):
    """`down(act(gate(x)) * up(x))`: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, size = config.hidden_size, config.intermediate_size
        self.gate_up_proj = MergedColumnParallelLinear(
            hidden, [size, size], bias=config.use_bias, parts=("gate_proj", "up_proj")
        )
        self.act = ActivationAndMul(config.hidden_act)
        self.down_proj = RowParallelLinear(size, hidden, bias=config.use_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x)
        return self.down_proj(self.act(gate, up))


class Block(nn.Module):
    """One layer."""

    def __init__(self, config: Any, rotary: RotaryEmbedding) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config, rotary)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), positions)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The table, the layers and the last norm."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.rotary = RotaryEmbedding(config, config.head_dim, interleaved=True)
        self.layers = nn.ModuleList(Block(config, self.rotary) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, positions)
        return self.norm(x)


class SoundForCausalLM(Model):
    """The decoder with a head over the vocabulary."""

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.model = Decoder(config)
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.lm_head.tie_weights(self.model.embed_tokens)

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_tokens(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: dict[str, Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        x = self.get_input_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        return self.model(x, positions)

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        return self.lm_head(hidden_states)

"""The Llama decoder (Touvron et al. 2023) and the two that differ from it in a line: Mistral and Qwen2.

Pre-norm blocks of grouped-query attention with rotary positions and a gated MLP. `tokens` counts the tokens of all
requests, laid end to end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from sdk import Model, ModelContext, WeightMap
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


class Biases(NamedTuple):
    """Which linear layers have one."""

    qkv: bool = False
    output: bool = False
    mlp: bool = False


class LlamaAttention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023): `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any, biases: Biases, sliding_window: int | None, rotary: RotaryEmbedding) -> None:
        super().__init__()
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.qkv_proj = QKVParallelLinear(config.hidden_size, rotary.head_dim, heads, kv_heads, biases.qkv)
        self.attn = Attention(
            heads, rotary.head_dim, num_kv_heads=kv_heads, sliding_window=sliding_window, rotary=rotary
        )
        self.o_proj = RowParallelLinear(heads * rotary.head_dim, config.hidden_size, biases.output)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x)
        return self.o_proj(self.attn(q, k, v, positions))


class LlamaMLP(nn.Module):
    """`down(act(gate(x)) * up(x))` (Shazeer 2020): `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any, bias: bool) -> None:
        super().__init__()
        sizes = [config.intermediate_size] * 2
        self.gate_up_proj = MergedColumnParallelLinear(config.hidden_size, sizes, bias, parts=("gate_proj", "up_proj"))
        self.act_fn = ActivationAndMul(config.hidden_act)
        self.down_proj = RowParallelLinear(config.intermediate_size, config.hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x)
        return self.down_proj(self.act_fn(gate, up))


class LlamaDecoderLayer(nn.Module):
    """One block. Takes and returns the branch's output and the residual stream, `(tokens, hidden)` each.

    The sum of the two is what the paper calls the layer's input; each norm adds them first.
    """

    def __init__(self, config: Any, biases: Biases, sliding_window: int | None, rotary: RotaryEmbedding) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, biases, sliding_window, rotary)
        self.mlp = LlamaMLP(config, biases.mlp)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if residual is None:
            x, residual = self.input_layernorm(x), x
        else:
            x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(positions, x)
        x, residual = self.post_attention_layernorm(x, residual)
        return self.mlp(x), residual


class LlamaModel(nn.Module):
    """Embedding, blocks and the last norm: `(tokens,) -> (tokens, hidden)`."""

    def __init__(self, config: Any, biases: Biases, sliding_windows: list[int | None]) -> None:
        super().__init__()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = RotaryEmbedding(config, head_dim)
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(config, biases, window, self.rotary_emb) for window in sliding_windows
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        residual = None
        for layer in self.layers:
            x, residual = layer(positions, x, residual)
        return self.norm(x) if residual is None else self.norm(x, residual)[0]


class LlamaForCausalLM(Model):
    """Llama 1 to 3.x and what shares its config."""

    weight_map = WeightMap(drop=[r"rotary_emb\.inv_freq$"])

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        windows = [self.sliding_window(config, i) for i in range(config.num_hidden_layers)]
        self.model = LlamaModel(config, self.biases(config), windows)
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.lm_head.tie_weights(self.model.embed_tokens)

    @staticmethod
    def biases(config: Any) -> Biases:
        """Which linear layers have a bias."""
        return Biases(qkv=config.attention_bias, output=config.attention_bias, mlp=config.mlp_bias)

    @staticmethod
    def sliding_window(config: Any, layer: int) -> int | None:
        """How many positions the layer sees; `None`: all."""
        return None

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
        return self.model(positions, x)

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        return self.lm_head(hidden_states)


class MistralForCausalLM(LlamaForCausalLM):
    """Mistral 7B (Jiang et al. 2023): a sliding window in every layer."""

    @staticmethod
    def biases(config: Any) -> Biases:
        return Biases()

    @staticmethod
    def sliding_window(config: Any, layer: int) -> int | None:
        return config.sliding_window


class Qwen2ForCausalLM(LlamaForCausalLM):
    """Qwen2 (Yang et al. 2024): biased queries, keys and values, and a sliding window in some layers."""

    @staticmethod
    def biases(config: Any) -> Biases:
        return Biases(qkv=True)

    @staticmethod
    def sliding_window(config: Any, layer: int) -> int | None:
        return config.sliding_window if config.layer_types[layer] == "sliding_attention" else None

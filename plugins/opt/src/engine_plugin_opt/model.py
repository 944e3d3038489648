"""OPT (Zhang et al. 2022): learned positions, biases everywhere, ReLU; norms before the branches, or after them (350m)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import (
    Activation,
    Attention,
    ColumnParallelLinear,
    LayerNorm,
    PositionEmbedding,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
)

POSITION_OFFSET = 2
"""Rows of the position table before that of position 0: they were kept for padding."""


def opt_norm(config: Any) -> LayerNorm:
    """A layer norm, with or without learned parameters."""
    return LayerNorm(config.hidden_size, affine=config.layer_norm_elementwise_affine)


class OPTAttention(nn.Module):
    """Multi-head attention: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads, hidden = config.num_attention_heads, config.hidden_size
        self.qkv_proj = QKVParallelLinear(hidden, hidden // heads, heads, bias=config.enable_bias)
        self.attn = Attention(heads, hidden // heads)
        self.out_proj = RowParallelLinear(hidden, hidden, config.enable_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.attn(*self.qkv_proj(x)))


class OPTBlock(nn.Module):
    """One block: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.norm_first = config.do_layer_norm_before
        self.self_attn = OPTAttention(config)
        self.self_attn_layer_norm = opt_norm(config)
        self.fc1 = ColumnParallelLinear(config.hidden_size, config.ffn_dim, config.enable_bias)
        self.activation_fn = Activation(config.activation_function)
        self.fc2 = RowParallelLinear(config.ffn_dim, config.hidden_size, config.enable_bias)
        self.final_layer_norm = opt_norm(config)

    def mlp(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation_fn(self.fc1(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.norm_first:
            x = x + self.self_attn(self.self_attn_layer_norm(x))
            return x + self.mlp(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x + self.self_attn(x))
        return self.final_layer_norm(x + self.mlp(x))


class OPTDecoder(nn.Module):
    """Positions, blocks and the last norm, in a width that may be another than the embedding's.

    Shapes: positions `(tokens,)`, embeddings `(tokens, word_embed_proj_dim)` → `(tokens, word_embed_proj_dim)`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, hidden = config.word_embed_proj_dim, config.hidden_size
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, width)
        self.embed_positions = PositionEmbedding(config.max_position_embeddings, hidden, offset=POSITION_OFFSET)
        self.project_in = ReplicatedLinear(width, hidden, bias=False) if width != hidden else nn.Identity()
        self.layers = nn.ModuleList(OPTBlock(config) for _ in range(config.num_hidden_layers))
        # Checkpoints tuned before the last norm was published say so in their config.
        ends_in_norm = config.do_layer_norm_before and not config._remove_final_layer_norm
        self.final_layer_norm = opt_norm(config) if ends_in_norm else nn.Identity()
        self.project_out = ReplicatedLinear(hidden, width, bias=False) if width != hidden else nn.Identity()

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        x = self.project_in(x) + self.embed_positions(positions)
        for layer in self.layers:
            x = layer(x)
        return self.project_out(self.final_layer_norm(x))


class OPTForCausalLM(CausalLM):
    """OPT, 125m to 66b."""

    weight_map = WeightMap(rename=[(r"^(model\.)?decoder\.", "model.")])

    def build_decoder(self, config: Any) -> OPTDecoder:
        return OPTDecoder(config)

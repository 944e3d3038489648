"""Persimmon (Elsen et al. 2023): rotary positions in a part of each head, normalised queries and keys, squared ReLU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM
from sdk.layers import (
    Activation,
    Attention,
    ColumnParallelLinear,
    LayerNorm,
    RotaryEmbedding,
    RowParallelLinear,
    VocabParallelEmbedding,
)


class PersimmonAttention(nn.Module):
    """Multi-head attention over normalised queries and keys: positions `(tokens,)`, x `(tokens, hidden)` → `(tokens, hidden)`.

    Checkpoints fuse the three projections head by head: a head's query, key and value lie side by side.
    """

    def __init__(self, config: Any, rotary: RotaryEmbedding) -> None:
        super().__init__()
        heads, head_dim = config.num_attention_heads, rotary.head_dim
        self.head_dim = head_dim
        self.query_key_value = ColumnParallelLinear(config.hidden_size, 3 * heads * head_dim)
        normalised = config.qk_layernorm
        self.q_layernorm = LayerNorm(head_dim, config.layer_norm_eps) if normalised else nn.Identity()
        self.k_layernorm = LayerNorm(head_dim, config.layer_norm_eps) if normalised else nn.Identity()
        self.attn = Attention(heads, head_dim, rotary=rotary)
        self.dense = RowParallelLinear(heads * head_dim, config.hidden_size)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        by_head = self.query_key_value(x).unflatten(-1, (-1, 3, self.head_dim))
        q, k, v = by_head.movedim(-2, 0).contiguous()  # kernels read heads side by side
        return self.dense(self.attn(self.q_layernorm(q), self.k_layernorm(k), v, positions))


class PersimmonMLP(nn.Module):
    """`dense_4h_to_h(act(dense_h_to_4h(x)))`: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense_h_to_4h = ColumnParallelLinear(config.hidden_size, config.intermediate_size)
        self.act = Activation(config.hidden_act)
        self.dense_4h_to_h = RowParallelLinear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_4h_to_h(self.act(self.dense_h_to_4h(x)))


class PersimmonBlock(nn.Module):
    """Attention and MLP, each behind a layer norm: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any, rotary: RotaryEmbedding) -> None:
        super().__init__()
        self.input_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = PersimmonAttention(config, rotary)
        self.post_attention_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = PersimmonMLP(config)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        x = x + self.self_attn(positions, self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class PersimmonDecoder(nn.Module):
    """The embedding, the blocks and the last norm: positions `(tokens,)`, embeddings `(tokens, hidden)` → `(tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = RotaryEmbedding(config)
        self.layers = nn.ModuleList(PersimmonBlock(config, self.rotary_emb) for _ in range(config.num_hidden_layers))
        self.final_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(positions, x)
        return self.final_layernorm(x)


class PersimmonForCausalLM(CausalLM):
    """Persimmon 8B, base and chat, and the language model inside Fuyu."""

    def build_decoder(self, config: Any) -> PersimmonDecoder:
        return PersimmonDecoder(config)

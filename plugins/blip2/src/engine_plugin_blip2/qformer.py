"""The Q-Former: a few learned queries that look at a picture, and become what the language model reads of it.

Blocks are BERT's, with norms after the branches; in every so many of them the queries also attend over the picture.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk.layers import (
    MLP,
    ColumnParallelLinear,
    EncoderAttention,
    LayerNorm,
    MergedColumnParallelLinear,
    RowParallelLinear,
)


class QFormerAttention(nn.Module):
    """Attention of the queries over rows, and the norm of its sum with the queries.

    Shapes: x `(items, queries, hidden)`, rows `(items, n, width)` → `(items, queries, hidden)`.
    """

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.heads, hidden = config.num_attention_heads, config.hidden_size
        self.query = ColumnParallelLinear(hidden, hidden)
        self.key_value = MergedColumnParallelLinear(width, [hidden, hidden], parts=("key", "value"))
        self.attn = EncoderAttention(self.heads, hidden // self.heads)
        self.output = RowParallelLinear(hidden, hidden)
        self.norm = LayerNorm(hidden, config.layer_norm_eps)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in (self.query(x), *self.key_value(rows)))
        return self.norm(x + self.output(self.attn(q, k, v)))


class QFormerLayer(nn.Module):
    """One block; shapes as of `QFormerAttention`, whose rows are the picture's."""

    def __init__(self, config: Any, *, sees: bool) -> None:
        super().__init__()
        self.attention = QFormerAttention(config, config.hidden_size)
        self.crossattention = QFormerAttention(config, config.encoder_hidden_size) if sees else None
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        x = self.attention(x, x)
        if self.crossattention is not None:
            x = self.crossattention(x, picture)
        return self.norm(x + self.mlp(x))


class QFormer(nn.Module):
    """The stack: queries `(items, queries, hidden)`, picture `(items, n, encoder_hidden)` → `(items, queries, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        every = config.cross_attention_frequency
        self.layers = nn.ModuleList(QFormerLayer(config, sees=i % every == 0) for i in range(config.num_hidden_layers))

    def forward(self, queries: Tensor, picture: Tensor) -> Tensor:
        x = self.layernorm(queries)
        for layer in self.layers:
            x = layer(x, picture)
        return x

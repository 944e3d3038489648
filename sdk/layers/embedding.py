"""The two ends of a language model: token ids and positions → hidden states, hidden states → logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Layer
from .linear import Linear


class VocabParallelEmbedding(Layer):
    """A table of token embeddings, which an engine may split by rows over devices.

    Shapes: `(tokens,) int -> (tokens, embedding_dim)`.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim), requires_grad=False)

    def reference(self, input_ids: Tensor) -> Tensor:
        return F.embedding(input_ids, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class PositionEmbedding(Layer):
    """A learned embedding of each position (Gehring et al. 2017), which every device holds whole.

    Args:
        num_positions: Positions that the model knows.
        embedding_dim: Width.
        offset: Rows of the table before that of position 0: some families keep the first for padding.

    Shapes: `(tokens,) int -> (tokens, embedding_dim)`.
    """

    def __init__(self, num_positions: int, embedding_dim: int, *, offset: int = 0, prefix: str = "") -> None:
        super().__init__(prefix)
        self.num_positions, self.offset = num_positions, offset
        self.weight = nn.Parameter(torch.empty(num_positions + offset, embedding_dim), requires_grad=False)

    def reference(self, positions: Tensor) -> Tensor:
        return F.embedding(positions + self.offset, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_positions}, offset={self.offset}"


class ParallelLMHead(Linear):
    """Hidden states → logits over the vocabulary, which an engine may split by rows over devices.

    Shapes: `(rows, hidden) -> (rows, vocab)`.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, bias: bool = False, *, prefix: str = "") -> None:
        super().__init__(embedding_dim, num_embeddings, bias, prefix=prefix)

    def tie_weights(self, embedding: VocabParallelEmbedding) -> ParallelLMHead:
        """Share the embedding's table, as `tie_word_embeddings` in a config asks; returns itself."""
        self.weight = embedding.weight
        return self

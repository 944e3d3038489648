"""Greedy sampling on a CPU, compiled. The specification is `core.kernels.sampling.likeliest`."""

from __future__ import annotations

import torch
from torch import Tensor

from ._likeliest import likeliest_tokens
from .compiled import kind_of, supports
from .sampling import likeliest as likeliest_by_torch

SHARE = 8
"""As many logits are looked at while one element of other kernels is computed."""


def likeliest(logits: Tensor) -> Tensor:
    """See `sampling.Likeliest`."""
    if not supports(logits):
        return likeliest_by_torch(logits)
    rows, vocab = logits.shape
    made = torch.empty(2, rows, dtype=torch.int64)
    tokens, finite = made.numpy()
    kind = kind_of(logits.dtype)
    likeliest_tokens(logits.numel() // SHARE, logits.data_ptr(), logits.stride(0), rows, vocab, tokens, finite, kind)
    return made


__all__ = ["likeliest"]

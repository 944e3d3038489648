"""What forbids tokens: a forbidden token's logit is minus infinity, whatever else was done to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..transfer import send

Ids = NDArray[np.int64]


def pairs(rows: Sequence[int], ids: Sequence[Ids], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and token of each entry, as two index tensors."""
    at = np.repeat(np.array(rows, dtype=np.int64), [len(i) for i in ids])
    return send(at, device), send(np.concatenate(ids), device)


def forbid(logits: Tensor, rows: Sequence[int], ids: Sequence[Ids]) -> None:
    """Forbid each row its tokens, in place."""
    logits[pairs(rows, ids, logits.device)] = -torch.inf


def allow(logits: Tensor, rows: Sequence[int], ids: Sequence[Ids]) -> None:
    """Forbid each row all but its tokens, in place."""
    where = pairs(rows, ids, logits.device)
    kept = logits[where]
    logits[send(np.array(rows), logits.device)] = -torch.inf
    logits[where] = kept


def allow_bits(logits: Tensor, rows: Sequence[int], masks: NDArray[np.int32]) -> None:
    """Forbid each row the tokens whose bit is not set, in place.

    Args:
        logits: `(batch, vocab)`.
        rows: The rows that have a mask.
        masks: `(rows, words)`, bit `i % 32` of word `i // 32` stands for token `i`; tokens past the last are forbidden.
    """
    vocab = logits.shape[-1]
    # Little-endian words, so byte by byte the bits stand in the order of the tokens.
    octets = send(masks.astype("<i4", copy=False).view(np.uint8), logits.device)
    bits = (octets[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=logits.device)) & 1
    allowed = bits.view(len(masks), -1)[:, :vocab].bool()
    if allowed.shape[1] < vocab:
        allowed = torch.nn.functional.pad(allowed, (0, vocab - allowed.shape[1]))
    at = send(np.array(rows), logits.device)
    logits[at] = logits[at].masked_fill(~allowed, -torch.inf)

"""Draws without a sort, and penalties.

A row's tokens are cut off, and one is drawn, by looking for the value at which the tokens above it add up to a target: the bits
of a score's distance from the maximum order the tokens, and each pass over the row settles three of them. A program computes one
row and looks at nothing else, so that a draw does not depend on what shares the batch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...transfer import send
from ..sampling import Draws
from .common import padded

MOST = tl.constexpr(0x7FFFFFFF)
TILE = 1024


@triton.jit
def distances(row, start, vocab, best, temperature, TILE: tl.constexpr):
    """In a kernel: how far a tile's scores are below the maximum, as ordered integers, and their weights."""
    i = start + tl.arange(0, TILE)
    x = tl.load(row + i, mask=i < vocab, other=float("-inf"))
    below = tl.abs((x - best) / temperature)
    return tl.where(i < vocab, below.to(tl.int32, bitcast=True), MOST), tl.exp(-below)


@triton.jit
def sums(row, vocab, best, temperature, at, TILE: tl.constexpr):
    """In a kernel: how many tokens are nearer than `at` and as near, and what the nearer ones weigh."""
    nearer = tl.zeros((1,), dtype=tl.int32)
    equal = tl.zeros((1,), dtype=tl.int32)
    weight = tl.zeros((1,), dtype=tl.float64)
    for start in range(0, vocab, TILE):
        a, w = distances(row, start, vocab, best, temperature, TILE)
        nearer += tl.sum((a < at).to(tl.int32), 0)
        equal += tl.sum((a == at).to(tl.int32), 0)
        weight += tl.sum(tl.where(a < at, w, 0.0), 0).to(tl.float64)
    return tl.sum(nearer, 0), tl.sum(equal, 0), tl.sum(weight, 0)


@triton.jit
def search(row, vocab, best, temperature, target, COUNTED: tl.constexpr, BEYOND: tl.constexpr, TILE: tl.constexpr):
    """In a kernel: the least distance within which tokens reach `target` (or go `BEYOND` it), in weight or `COUNTED`."""
    way = tl.arange(0, 8) + 1
    low = -1
    for i in range(11):
        step = 1 << tl.maximum(28 - 3 * i, 0)
        bounds = low + step * way
        found = tl.zeros((8,), dtype=tl.float64)
        for start in range(0, vocab, TILE):
            a, w = distances(row, start, vocab, best, temperature, TILE)
            share = tl.where(a < MOST, 1.0, 0.0) if COUNTED else w
            found += tl.sum(tl.where(a[:, None] <= bounds[None, :], share[:, None], 0.0), 0).to(tl.float64)
        short = found <= target if BEYOND else found < target
        low += step * tl.sum(short.to(tl.int32), 0)
    return low + 1


@triton.jit
def weight_at(at):
    """In a kernel: what a token at a distance weighs."""
    return tl.exp(-at.to(tl.float32, bitcast=True)).to(tl.float64)


@triton.jit
def draw_rows(logits, out, temperatures, top_ks, top_ps, leasts, us, vocab, stride, TILE: tl.constexpr):
    """Programs: rows."""
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    temperature, top_k = tl.load(temperatures + number), tl.load(top_ks + number)
    top_p, least, u = tl.load(top_ps + number), tl.load(leasts + number), tl.load(us + number)
    best = float("-inf")
    for start in range(0, vocab, TILE):
        i = start + tl.arange(0, TILE)
        best = tl.maximum(best, tl.max(tl.load(row + i, mask=i < vocab, other=float("-inf")), 0))

    # The last distance that is kept, and how many of the tokens just there: those with the lower ids.
    last = tl.abs(least).to(tl.int32, bitcast=True)
    ties = MOST + 0
    if top_k > 0:
        at = search(row, vocab, best, temperature, top_k.to(tl.float64), True, False, TILE)
        nearer, equal, weight = sums(row, vocab, best, temperature, at, TILE)
        ties = tl.where(at <= last, top_k - nearer, ties)
        kept = weight + (top_k - nearer).to(tl.float64) * weight_at(at)
        last = tl.minimum(at, last)
    else:
        nearer, equal, kept = sums(row, vocab, best, temperature, MOST, TILE)
    if top_p < 1.0:
        at = search(row, vocab, best, temperature, top_p * kept, False, False, TILE)
        nearer, equal, weight = sums(row, vocab, best, temperature, at, TILE)
        some = tl.maximum(tl.ceil((top_p * kept - weight) / weight_at(at)), 1.0)
        some = tl.minimum(some, equal.to(tl.float64)).to(tl.int32)
        ties = tl.where(at < last, some, tl.where(at == last, tl.minimum(some, ties), ties))
        last = tl.minimum(at, last)

    nearer, equal, weight = sums(row, vocab, best, temperature, last, TILE)
    ties = tl.minimum(ties, equal)
    target = u * (weight + ties.to(tl.float64) * weight_at(last))
    at = tl.minimum(search(row, vocab, best, temperature, target, False, True, TILE), last)
    nearer, equal, weight = sums(row, vocab, best, temperature, at, TILE)
    equal = tl.where(at == last, ties, equal)
    place = tl.floor((target - weight) / weight_at(at))
    place = tl.maximum(tl.minimum(place, equal.to(tl.float64) - 1.0), 0.0).to(tl.int32)

    token, seen = 0, 0
    for start in range(0, vocab, TILE):
        a, w = distances(row, start, vocab, best, temperature, TILE)
        match = (a == at).to(tl.int32)
        hit = (match == 1) & (seen + tl.cumsum(match, 0) == place + 1)
        token += tl.sum(tl.where(hit, start + tl.arange(0, TILE), 0), 0)
        seen += tl.sum(match, 0)
    tl.store(out + number, token)


def draw(logits: Tensor, draws: Draws) -> Tensor:
    """As `core.kernels.sampling.draw`."""
    device, (rows, vocab) = logits.device, logits.shape
    out = torch.zeros(rows, dtype=torch.int64, device=device)
    if rows:
        draw_rows[(rows,)](
            logits.contiguous(),
            out,
            send(draws.temperature, device).float().clamp(min=1e-6),
            send(draws.top_k, device).int(),
            send(draws.top_p, device),
            send(draws.min_p, device).log().float(),
            send(draws.u, device),
            vocab,
            vocab,
            TILE=min(TILE, padded(vocab, 16)),
            num_warps=8,
        )
    return out


@triton.jit
def penalise_entries(logits, rows, ids, times, repetition, frequency, presence, count, stride, TILE: tl.constexpr):
    """Programs: parts of the list. An entry is one token of one row; none comes twice."""
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = i < count
    at = logits + tl.load(rows + i, mask=inside, other=0) * stride + tl.load(ids + i, mask=inside, other=0)
    value, often = tl.load(at, mask=inside, other=0.0), tl.load(times + i, mask=inside, other=0.0)
    factor = tl.load(repetition + i, mask=inside, other=1.0)
    value = tl.where(value > 0.0, value / factor, value * factor)
    value -= tl.load(frequency + i, mask=inside, other=0.0) * often
    value -= tl.load(presence + i, mask=inside, other=0.0) * tl.where(often > 0.0, 1.0, 0.0)
    tl.store(at, value, mask=inside)


def penalise(logits: Tensor, rows: Tensor, ids: Tensor, times: Tensor, repetition: Tensor, frequency: Tensor,
             presence: Tensor) -> None:  # fmt: skip
    """As `core.kernels.sampling.penalise`."""
    if len(rows):
        penalise_entries[(-(-len(rows) // TILE),)](
            logits, rows, ids, times, repetition, frequency, presence, len(rows), logits.stride(0), TILE=TILE, num_warps=4
        )  # fmt: skip

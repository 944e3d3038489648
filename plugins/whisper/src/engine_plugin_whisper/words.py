"""When each word was said, read from how the decoder attends over the clip while it writes (Radford et al. 2022, and the dynamic
time warping of Sakoe & Chiba 1978)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_UNFINISHED = "�"


def row_starts(attention: Floats, median_width: int) -> NDArray[np.int64]:
    """At which state of the clip each row of attention begins.

    Args:
        attention: `(heads, rows, states)`, the weights of the heads that follow the clip, cut to the clip's own length.
        median_width: Of the filter that smooths them along the clip.

    Returns:
        `(rows,)`, rising.
    """
    shares = attention / attention.sum(axis=-1, keepdims=True)
    spread = shares.std(axis=-2, keepdims=True)
    even = (shares - shares.mean(axis=-2, keepdims=True)) / np.where(spread > 0, spread, 1)
    smooth = sum(median_filter(head, median_width) for head in even) / len(even)
    return warp(-smooth.astype(np.float64))


def median_filter(rows: Floats, width: int) -> Floats:
    """The median of `width` neighbours, an odd number, along the last dimension; the ends are mirrored."""
    half = width // 2
    if half == 0 or rows.shape[-1] <= half:
        return rows
    padded = np.pad(rows, ((0, 0), (half, half)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    made: Floats = np.median(windows, axis=-1)
    return made


def warp(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where each row of `(rows, columns)` begins on the cheapest path that goes on by a row, a column or both at a time."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    moves = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    moves[0, :], moves[:, 0] = 2, 1
    for diagonal in range(2, rows + columns + 1):  # its cells depend on earlier ones alone
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, row, column = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        moves[i, j] = np.where((both < row) & (both < column), 0, np.where((row < both) & (row < column), 1, 2))
        total[i, j] = costs[i - 1, j - 1] + np.choose(moves[i, j], (both, row, column))
    starts = np.zeros(rows, dtype=np.int64)
    at_row, at_column = rows, columns
    while at_row > 0:
        starts[at_row - 1] = max(at_column - 1, 0)
        move = moves[at_row, at_column]
        at_row, at_column = at_row - (move != 2), at_column - (move != 1)
    return starts


def split_words(ids: Sequence[int], tokenizer: Any, *, spaces: bool) -> Iterator[tuple[str, int]]:
    """Words, and how many tokens each takes.

    Args:
        ids: Tokens of text.
        tokenizer: Whose they are.
        spaces: Whether the language sets its words apart; each character is one otherwise.
    """
    word, taken = "", 0
    for text, count in _characters(ids, lambda some: str(tokenizer.decode(some))):
        begins = text[:1].isspace() if spaces else not _is_punctuation(text)
        if begins and word.strip():
            yield word.strip(), taken
            word, taken = "", 0
        word, taken = word + text, taken + count
    if taken:
        yield word.strip(), taken


def _characters(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Iterator[tuple[str, int]]:
    """The shortest runs of tokens that are whole characters."""
    start = 0
    for stop in range(1, len(ids) + 1):
        text = decode(ids[start:stop])
        if not text.endswith(_UNFINISHED) or stop == len(ids):
            yield text, stop - start
            start = stop


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(character).startswith(("P", "Z")) for character in text)


__all__ = ["median_filter", "row_starts", "split_words", "warp"]

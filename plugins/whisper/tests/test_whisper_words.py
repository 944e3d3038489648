"""Words and their times: the arithmetic against transformers' own, and words against texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_whisper.words import median_filter, row_starts, split_words, warp
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_the_cheapest_path_is_hf_s(rows: int, columns: int, seed: int) -> None:
    costs = np.random.default_rng(seed).standard_normal((rows, columns))
    text, time = _dynamic_time_warping(costs)
    expected = time[np.pad(np.diff(text), (1, 0), constant_values=1).astype(bool)]
    assert warp(costs).tolist() == expected.tolist()


@pytest.mark.parametrize("columns", [1, 3, 4, 7, 50])
def test_the_median_is_hf_s(columns: int) -> None:
    rows = np.random.default_rng(columns).standard_normal((5, columns)).astype(np.float32)
    expected = _median_filter(torch.from_numpy(rows)[None, None], 7)[0, 0].numpy()
    assert np.array_equal(median_filter(rows, 7), expected)


def test_a_token_begins_where_the_heads_begin_to_look() -> None:
    attention = np.full((2, 4, 40), 1e-3, dtype=np.float32)
    for row, start in enumerate((0, 9, 18, 27)):
        attention[:, row, start : start + 9] = 1.0
    assert np.abs(row_starts(attention, 7) - [0, 9, 18, 27]).max() <= 1
    assert row_starts(np.ones((1, 1, 5), np.float32), 7).tolist() == [0]


@pytest.mark.parametrize(
    ("text", "spaces", "expected"),
    [
        (" The quick brown fox, and the dog.", True, ["The", "quick", "brown", "fox,", "and", "the", "dog."]),
        (' "Yes," he said', True, ['"Yes,"', "he", "said"]),
        ("快速的棕色，狐狸。", False, ["快", "速", "的", "棕", "色，", "狐", "狸。"]),
        (" é 🦊!", True, ["é", "🦊!"]),
        ("", True, []),
    ],
)
def test_words_are_told_apart(processor: Any, text: str, spaces: bool, expected: list[str]) -> None:
    tokenizer = processor.info.get_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = list(split_words(ids, tokenizer, spaces=spaces))
    assert [word for word, _ in found] == expected
    assert sum(count for _, count in found) == len(ids)

"""Decoded tokens whose keys are split over programs: the parts joined are the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from core.sequences import StepSequences
from core.transfer import Places
from sdk.layers import attention_reference
from tests.kernels.grid import device_of

paged_attention = pytest.importorskip("core.kernels.triton.paged_attention")
DEVICE = device_of("triton")
PAGE = 16


@pytest.mark.parametrize("busy", [1, 8, 10_000])
@pytest.mark.parametrize(
    "extra",
    [{}, {"window": 50}, {"cap": 2.0}, {"sinks": torch.tensor([0.0, 1.0, -1.0, 3.0])}, {"causal": False}],
    ids=lambda extra: next(iter(extra), "plain"),
)
def test_parts_are_joined(extra: dict[str, Any], busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_attention, "LEAST_SPLIT", 8)
    lengths = np.array([200, 1, 33, 64, 7])  # the short ones leave splits without a key
    generator = torch.Generator().manual_seed(busy)
    counts = -(-lengths // PAGE)
    keys, values = (torch.randn(counts.sum() + 1, PAGE, 2, 32, generator=generator) for _ in "kv")
    table = np.zeros((len(lengths), counts.max()), dtype=np.int32)
    for i, (count, last) in enumerate(zip(counts, np.cumsum(counts))):
        table[i, :count] = np.arange(last, last - count, -1)
    q = torch.randn(len(lengths), 4, 32, generator=generator)
    ones = np.ones(len(lengths), dtype=np.int64)
    sequences = StepSequences.of("pages", np.arange(len(lengths)), ones, lengths, Places(DEVICE))
    given = {name: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for name, x in extra.items()}
    ours = paged_attention.attend_pages(
        q.to(DEVICE),
        keys.to(DEVICE),
        values.to(DEVICE),
        torch.from_numpy(table).to(DEVICE),
        sequences,
        paged_attention.Scores(0.2, **given),
        busy,
    )
    for i, length in enumerate(lengths):
        k, v = (x[table[i, : counts[i]]].flatten(0, 1)[:length] for x in (keys, values))
        expected = attention_reference(
            q[i : i + 1],
            k,
            v,
            scale=0.2,
            sliding_window=extra.get("window"),
            logit_softcap=extra.get("cap"),
            sinks=extra.get("sinks"),
        )
        torch.testing.assert_close(ours[i : i + 1].cpu(), expected, rtol=0, atol=2e-5)

"""Cross-attention over projected states, in every form, against the layer's reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.cache.states import EncoderStates, padded
from core.request import Request
from core.scheduler import Scheduled
from core.step import StepBuilder, StepHolder
from sdk.layers import CrossAttention
from sdk.multimodal import PlaceholderRange, ProcessedItem
from tests.kernels import grid
from tests.kernels.grid import FORMS_AND_DTYPES, TOLERANCE, device_of, kernels_of

HIDDEN = 24
# (rows of the state, tokens computed now) of each sequence: one row, page edges, a full state; decoded tokens and prompts.
BATCHES = {
    "one token": [(100, 1)],
    "a prompt": [(100, 17)],
    "one row": [(1, 1), (1, 3)],
    "page edges": [(63, 1), (64, 1), (65, 1), (128, 1)],
    "everything": [(5, 1), (100, 9), (64, 1), (1, 4), (99, 1), (127, 2)],
}


class Projecting:
    """Keys and values by two matrices."""

    def __init__(self, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(kv_heads * 100 + head_dim)
        made = torch.randn(2, HIDDEN, kv_heads * head_dim, generator=generator).to(device, dtype) / HIDDEN**0.5
        self.keys, self.values, self.head_dim = made[0], made[1], head_dim

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, self.head_dim)
        return (states @ self.keys).unflatten(-1, shape), (states @ self.values).unflatten(-1, shape)


def request(slot: int, count: int) -> Request:
    """A sequence of so many tokens that attends over something."""
    heard = ProcessedItem({}, PlaceholderRange("audio", 0, 0, 0, torch.zeros(0).bool().numpy()))
    return grid.request(slot, count, encoder_item=heard, pages=[1] * count)


@pytest.mark.parametrize(("form", "dtype"), FORMS_AND_DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 4, 8), (6, 2, 16), (1, 1, 64), (3, 1, 5)])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_every_token_attends_over_its_own_state(
    batch: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, form: str
) -> None:
    device = device_of(form)
    project = Projecting(kv_heads, head_dim, dtype, device)
    layer = CrossAttention(heads, head_dim, project, num_kv_heads=kv_heads)
    # What lies beyond a state's rows, and in states that nobody holds, must not be read.
    shape = (len(batch) + 2, padded(128), kv_heads, head_dim)
    keys, values = (torch.full(shape, float("nan"), dtype=dtype, device=device) for _ in "kv")
    kept = EncoderStates({"layer": layer}, {"layer": (keys, values)}, 128)
    generator = torch.Generator().manual_seed(len(batch))
    plan, states, queries = [], [], []
    for slot, (rows, count) in enumerate(batch):
        found = request(slot, count)
        found.state, found.state_len = len(batch) - slot, rows
        states.append(torch.randn(rows, HIDDEN, generator=generator).to(device, dtype))
        kept.write(found.state, states[-1])
        queries.append(torch.randn(count, heads, head_dim, generator=generator).to(device, dtype))
        plan.append(Scheduled(found, 0, count))
    holder = StepHolder()
    holder.current = step = StepBuilder(len(batch), 128, 1, device).build(plan)
    kernel = kernels_of(form, dtype).cross_attention(layer, keys, values, holder, 0)
    made = kernel(torch.cat([queries[s.request.slot] for s in step.order]))
    for s, ours in zip(step.order, made.split([s.count for s in step.order])):
        slot = s.request.slot
        expected = layer.reference(queries[slot], states[slot])
        assert ours.shape == expected.shape
        assert (ours.float() - expected.float()).abs().max() <= TOLERANCE[dtype]

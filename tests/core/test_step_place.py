"""What a step sends to a device that is not the host, seen on a device without memory, and that the page table follows."""

from __future__ import annotations

import numpy as np
import torch

from core.scheduler import Scheduled
from core.sequences import PageTable
from core.step import StepBuilder
from tests.kernels.grid import request


def test_a_step_is_laid_out_for_another_device() -> None:
    builder = StepBuilder(4, 64, 16, torch.device("meta"), step_tokens=48)
    first, second = request(0, 40, pages=[1, 2, 3]), request(1, 3, pages=[4])
    step = builder.build([Scheduled(first, 0, 40), Scheduled(second, 0, 3)])
    for made in (step.input_ids, step.positions, step.cache_slots, step.lengths):
        assert made.device.type == "meta"
        assert made.shape == (43,)
        assert made.untyped_storage().nbytes() == 48 * 8
    again = builder.build([Scheduled(first, 39, 1)])
    assert again.input_ids._base is step.input_ids._base
    assert again.sequences.slots._base is step.sequences.slots._base is not None
    assert step.sequences.blocks(16).decodes == 0
    assert len(step.sequences.blocks(16).where) == 3 + 1
    assert again.sequences.blocks(16).decodes == 1


def test_only_what_is_new_travels_to_the_page_table() -> None:
    pages = np.arange(12, dtype=np.int32).reshape(3, 4)
    table = PageTable(pages, torch.device("cpu"))
    table.tensor = torch.zeros(3, 4, dtype=torch.int32)  # as if it were another device's
    table.mirrors = True
    table.changed(1, 1, 3)
    table.changed(2, 0, 1)
    table.send()
    assert table.tensor.tolist() == [[0, 0, 0, 0], [0, 5, 6, 0], [8, 0, 0, 0]]
    pages[1, 1] = 99
    table.send()
    assert table.tensor[1, 1] == 5


def test_blocks_hold_tokens_of_one_sequence_and_single_tokens_come_first() -> None:
    builder = StepBuilder(4, 64, 16, torch.device("cpu"))
    plan = [Scheduled(request(0, 20, pages=[1, 2]), 0, 20), Scheduled(request(1, 5, pages=[3]), 4, 1)]
    step = builder.build(plan)
    blocks = step.sequences.blocks(8)
    assert blocks.decodes == 1
    assert blocks.where.tolist() == [[0, 0], [1, 0], [1, 8], [1, 16]]
    assert step.sequences.slots.tolist() == [1, 0]
    assert step.sequences.lengths.tolist() == [5, 20]
    assert step.sequences.firsts.tolist() == [0, 1, 21]

"""What is kept between steps takes no more of the process's memory than was written."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
import torch

from core.cache.memory import zeroed

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4, 5), (70, 1000)])
def test_it_is_zero_and_can_be_written(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    made = zeroed(shape, dtype, CPU)
    assert (made.shape, made.dtype, made.is_contiguous()) == (shape, dtype, True)
    assert torch.equal(made, torch.zeros(shape, dtype=dtype))
    made += 1
    assert torch.equal(made, torch.ones(shape, dtype=dtype))


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
def test_it_takes_the_pages_that_were_written() -> None:
    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    before = held()
    made = zeroed((256, 2**20), torch.float32, CPU)
    made[:, 0] = 1  # a little of each 4 MiB
    assert made[:, 0].sum() == 256
    assert held() - before < 64 * 2**20, "whole huge pages were taken"

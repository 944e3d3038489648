"""What a process holds besides weights and caches: little on the way, nothing twice, and no holes that stay."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from core import LLM
from core.cache import memory
from core.cache.memory import APART, apart

from .conftest import with_pictures

BLOCKS = """
import ctypes
from core.process import large_blocks_apart, prepare_process

class Info(ctypes.Structure):
    _fields_ = [(f"_{i}", ctypes.c_size_t) for i in range(4)] + [("mapped", ctypes.c_size_t)] + \
        [(f"_{i}", ctypes.c_size_t) for i in range(5, 10)]

library = ctypes.CDLL(None)
library.mallinfo2.restype, library.malloc.restype = Info, ctypes.c_void_p

def mapped():
    before = library.mallinfo2().mapped
    library.malloc(ctypes.c_size_t(20 * 2**20))
    return library.mallinfo2().mapped - before >= 20 * 2**20

prepare_process()
found = [mapped()]
with large_blocks_apart():
    found.append(mapped())
print([*found, mapped()])
"""


def glibc_tells() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")


@pytest.mark.skipif(not glibc_tells(), reason="needs a glibc that tells what it has mapped")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "[False, True, False]"), ({"MALLOC_MMAP_THRESHOLD_": "1000"}, "[True, True, True]")],
)
def test_weights_lie_apart_and_what_steps_compute_is_kept(environment: dict[str, str], expected: str) -> None:
    """In memory of their own while a model is loaded, and only then; what the user set stays."""
    made = subprocess.run(
        [sys.executable, "-c", BLOCKS], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == expected


def test_what_is_kept_for_long_lies_by_itself() -> None:
    batch = torch.randn(3, APART)
    kept = apart(batch[1])
    assert torch.equal(kept, batch[1])
    assert kept.untyped_storage().nbytes() == kept.nbytes
    assert apart(torch.ones(2, APART, dtype=torch.bfloat16)).dtype is torch.bfloat16
    small = batch[0, :8]
    assert apart(small).untyped_storage().nbytes() == small.nbytes
    whole = small.clone()
    assert apart(whole) is whole


def test_a_request_holds_no_tensors_beside_those_that_are_remembered(
    llava: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "APART", 1)
    inputs = llava.engine.inputs
    llava.reset_caches()
    before = inputs.memory.hits, inputs.memory.misses
    (item,) = inputs.process(with_pictures("<image>", 5)).prompt.items
    assert item.kwargs is inputs.memory.peek(item.key)
    assert (inputs.memory.hits, inputs.memory.misses) == (before[0], before[1] + 1)

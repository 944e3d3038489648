"""What the numba kernels share."""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np
import pytest
from numba import prange
from numba.core.caching import FunctionCache

from core.kernels import disk_cache
from core.kernels.compiled import GRAIN, at, kernel, prepared, store


@kernel
def count_up(out: int, rows: int, kind: object) -> None:
    numbers = at(out, kind)
    for row in prange(rows):
        store(numbers, row, np.float32(row))


def test_the_two_forms_of_a_kernel_do_not_meet_in_the_cache() -> None:
    """numba names the files of its cache by the function: one name, and the form compiled first would serve as both."""
    names = {form.py_func.__qualname__ for form in (count_up.serial, count_up.parallel)}
    assert len(names) == 2
    for work in (GRAIN - 1, GRAIN):
        made = np.zeros(5, dtype=np.float32)
        count_up(work, made.ctypes.data, 5, made)
        assert made.tolist() == [0, 1, 2, 3, 4]
    assert count_up.serial.signatures == count_up.parallel.signatures


def test_a_form_that_was_called_is_called_directly_from_then_on() -> None:
    made, form = np.zeros(5, dtype=np.float64), count_up.form(0)
    args = made.ctypes.data, 5, made
    assert prepared(form, args) is form
    count_up(0, *args)
    direct = prepared(form, args)
    assert direct is not form
    made[:] = 9
    direct(*args)
    assert made.tolist() == [0, 1, 2, 3, 4]
    assert prepared(form, (*args[:2], made.astype(np.int8))) is form  # of other types


def test_one_process_at_a_time_writes_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that did would give the code for one's types and that for the other's the same place."""
    fcntl = pytest.importorskip("fcntl")
    cache, free = count_up.serial._cache, []

    def look(*_: Any) -> None:
        another = os.open(cache.cache_path, os.O_RDONLY)
        try:
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(True)
        except BlockingIOError:
            free.append(False)
        finally:
            os.close(another)

    monkeypatch.setattr(FunctionCache, "save_overload", look)
    cache.save_overload((), None)
    look()
    assert free == [False, True]


def test_R091_kernels_run_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def no_folder(*_: Any) -> Any:
        raise RuntimeError("no locator available")

    def full(*_: Any) -> Any:
        raise OSError("no space left on device")

    disk_cache._tell_that_nothing_is_kept.cache_clear()
    cache = count_up.serial._cache
    monkeypatch.setattr(FunctionCache, "save_overload", full)
    cache.save_overload((), None)
    monkeypatch.setattr(disk_cache, "DiskCache", no_folder)
    form = disk_cache.cached(numba.njit(lambda x: x + 1))
    assert form(2) == 3
    assert ["no space left on device" in said for said in caplog.messages] == [True, False]
    assert all("NUMBA_CACHE_DIR" in said for said in caplog.messages)

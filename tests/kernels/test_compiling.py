"""Who waits while kernels are compiled is told so."""

from __future__ import annotations

import numba

from core.kernels.compiling import NEWS, tell_of_compiling


def test_the_first_kernel_that_is_compiled_is_told_of_and_no_other() -> None:
    told: list[str] = []
    tell_of_compiling(told.append)
    add, twice = numba.njit(lambda x: x + 1), numba.njit(lambda x: 2 * x)
    assert told == []
    assert (add(1), add(2), twice(3), add(1.5)) == (2, 3, 6, 2.5)
    assert told == [NEWS]

"""The laws, one module a level."""

from __future__ import annotations

from ..law import Law
from . import (
    level0_static,
    level1_build,
    level1_states,
    level2_processor,
    level3_dummy,
    level4_parity,
    level4_pooling,
    level5_invariance,
    level5_memory,
    level5_pooling,
)

TITLES = {
    0: "static",
    1: "build and weights",
    2: "processor",
    3: "dummy inputs are the worst case",
    4: "parity with transformers",
    5: "invariance",
    6: "through HTTP with a real client",
}
"""Every level there will be."""

LEVELS: dict[int, tuple[Law, ...]] = {
    0: level0_static.LAWS,
    1: (*level1_build.LAWS, *level1_states.LAWS),
    2: level2_processor.LAWS,
    3: level3_dummy.LAWS,
    4: (*level4_parity.LAWS, *level4_pooling.LAWS),
    5: (*level5_invariance.LAWS, *level5_memory.LAWS, *level5_pooling.LAWS),
}
"""The levels there are."""


def laws_up_to(level: int) -> list[Law]:
    """The laws of all levels up to this one, in order."""
    return [law for number, laws in LEVELS.items() if number <= level for law in laws]


__all__ = ["LEVELS", "TITLES", "laws_up_to"]

"""The laws, one module a level."""

from __future__ import annotations

from ..law import Law
from . import (
    level0_static,
    level1_build,
    level1_states,
    level2_processor,
    level3_dummy,
    level4_config,
    level4_parity,
    level4_pooling,
    level5_invariance,
    level5_memory,
    level5_pooling,
    level6_http,
)

LEVELS: dict[int, tuple[Law, ...]] = {
    0: level0_static.LAWS,
    1: (*level1_build.LAWS, *level1_states.LAWS),
    2: level2_processor.LAWS,
    3: level3_dummy.LAWS,
    4: (*level4_parity.LAWS, *level4_config.LAWS, *level4_pooling.LAWS),
    5: (*level5_invariance.LAWS, *level5_memory.LAWS, *level5_pooling.LAWS),
    6: level6_http.LAWS,
}
"""The levels and their laws."""

IN_PROCESS = 5
"""The highest level that starts no further processes: what is checked where nobody asks for more."""


def laws_up_to(level: int, lowest: int = 0) -> list[Law]:
    """The laws of all levels up to this one, in order; from a lowest one on, if it is given."""
    return [law for number, laws in LEVELS.items() if lowest <= number <= level for law in laws]


__all__ = ["IN_PROCESS", "LEVELS", "laws_up_to"]

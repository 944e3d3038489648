"""Tells who waits that kernels are being compiled, which the first start after an installation takes its time for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

NEWS = "compiling kernels for this processor, once: the first answer takes up to a minute"


def tell_of_compiling(tell: Callable[[str], None]) -> None:
    """Tell once, as soon as a kernel is compiled that was not found on disk. To be called when a model has been loaded.

    Args:
        tell: Shows a line to a person.
    """
    if "numba" not in sys.modules:  # this model's kernels are none of numba's
        return
    from numba.core import event

    class Once(event.Listener):  # type: ignore[misc]  # numba is untyped
        """Passes the first word of numba's compiler on."""

        told = False

        def on_start(self, event: Any) -> None:
            """It compiles."""
            if not self.told:
                self.told = True
                tell(NEWS)

        def on_end(self, event: Any) -> None:
            """It has compiled."""

    event.register("numba:compile", Once())

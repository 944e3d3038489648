"""The engine in a process of its own: what runs there. Commands come in, the engine steps, one message a step goes out.

One thread does it all: it takes what has been sent, steps while there is work, and tells. Grammars are compiled in threads beside
it, prompts have been processed before they come, and text is made by who reads it; so nothing but the model takes its time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from sdk._lazy import collector_paused

from ..errors import EngineDeadError, EngineError
from . import wire
from .faults import to_fault
from .line import Line
from .worker import receive_setup, work

if TYPE_CHECKING:
    from ..engine import Engine
    from .engine_loop import EngineLoop

logger = logging.getLogger(__name__)
PROGRESS_SECONDS = 0.2
"""Between two words on how far loading has come."""


def main(given: Mapping[str, Any]) -> None:
    """What the process does; see `work`."""
    work(given, wire.ToEngine, _run)


def _run(line: Line) -> bool:
    """Load the engine and run it; whether it ended because it was told to."""
    made = _made(line)
    if isinstance(made, EngineError):
        line.send(wire.Died(to_fault(made)))
        return False
    line.send(wire.Loaded(msgspec.to_builtins(made.engine.plan), sorted(made.engine.eos_token_ids), made.gauges()))
    return made.run()


@collector_paused()
def _made(line: Line) -> EngineLoop | EngineError:
    """The engine, loaded; or why it cannot be."""
    try:
        from .engine_loop import EngineLoop  # heavy: while this is imported, the parent finds the plugin

        setup = receive_setup(line)
        return EngineLoop(_loaded(setup, line), line, setup.heartbeat)
    except EngineError as error:
        return error
    except BaseException as error:
        logger.exception("the engine could not be loaded")
        return EngineDeadError(f"loading failed: {type(error).__name__}: {error}")


def _loaded(setup: wire.Setup, line: Line) -> Engine:
    """The engine, with the plugins that the parent found and no others."""
    from ..engine import Engine
    from ..kernels.compiling import tell_of_compiling
    from ..plugins import Catalog
    from ..progress import report_to

    Catalog.use(Catalog.from_records(setup.records))
    last = 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            line.send(wire.Progress(what, done, total))

    report_to(report)
    try:
        engine = Engine(setup.model, setup.options)
    finally:
        report_to(None)
    tell_of_compiling(logger.info)
    return engine

"""The engine in a process of its own: what runs there. Commands come in, the engine steps, one message a step goes out.

One thread does it all: it takes what has been sent, steps while there is work, and tells. Grammars are compiled in threads beside
it, prompts have been processed before they come, and text is made by who reads it; so nothing but the model takes its time.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import EngineDeadError, EngineError, InvalidConfigError
from . import wire
from .faults import to_fault
from .line import Line

if TYPE_CHECKING:
    from .engine_loop import EngineLoop

logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
LAST_WORDS_SECONDS = 2.0
"""For the last messages to go."""


def main(given: Mapping[str, Any]) -> None:
    """What the process does, from its start to its end.

    Args:
        given: `address` to connect to, `stacks` to write stacks to when asked by a signal, `log_level`.
    """
    _end_with_parent()
    # The process that started this one is told to end, and ends this one in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stacks = open(given["stacks"], "w")  # noqa: SIM115  # as long as the process
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    logging.basicConfig(level=given["log_level"], format="%(asctime)s %(levelname)s engine: %(message)s")
    line = Line.connect(given["address"], wire.ToEngine)
    line.send(wire.Hello())
    try:
        well = _run(line)
    finally:
        line.close(patience=LAST_WORDS_SECONDS)
    # No destructors: the model's threads and the device are the system's to take back, at once.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if well else 1)


def _run(line: Line) -> bool:
    """Load the engine and run it; whether it ended because it was told to."""
    made = _made(line)
    if isinstance(made, EngineError):
        line.send(wire.Died(to_fault(made)))
        return False
    line.send(wire.Loaded(msgspec.to_builtins(made.engine.plan), sorted(made.engine.eos_token_ids), made.gauges()))
    return made.run()


def _made(line: Line) -> EngineLoop | EngineError:
    """The engine, loaded; or why it cannot be."""
    try:
        from ..engine import Engine
        from .engine_loop import EngineLoop  # heavy: while this is imported, the parent finds the plugin

        setup = line.receive(None)
        if not isinstance(setup, wire.Setup) or setup.format != wire.FORMAT:
            return InvalidConfigError("the two ends of the engine's process are not of one version")
        engine = _load(Engine, setup, line)
    except EngineError as error:
        return error
    except BaseException as error:
        logger.exception("the engine could not be loaded")
        return EngineDeadError(f"loading failed: {type(error).__name__}: {error}")
    return EngineLoop(engine, line, setup.heartbeat)


def _load(engine_class: Any, setup: wire.Setup, line: Line) -> Any:
    """The engine, with the plugins that the parent found and no others."""
    from ..plugins import Catalog
    from ..progress import report_to

    Catalog.use(Catalog.from_records(setup.records))
    last = 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > 0.2:
            last = time.monotonic()
            line.send(wire.Progress(what, done, total))

    report_to(report)
    try:
        return engine_class(setup.model, setup.options)
    finally:
        report_to(None)


def _end_with_parent() -> None:
    """End this process when its parent has ended, whatever it is doing.

    The parent holds the other end of standard input. The system is asked for a signal as well, which also reaches a process that
    hangs within a library and so runs no thread of its own.
    """
    threading.Thread(target=_wait_for_end, name="parent", daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)

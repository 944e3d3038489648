"""What the processes have in common that a server starts: how they begin, how they end, and that they end with it."""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ..errors import InvalidConfigError
from . import wire
from .line import Line

LAST_WORDS_SECONDS = 2.0
"""For the last messages to go."""


def work(given: Mapping[str, Any], reads: Any, run: Callable[[Line], bool]) -> NoReturn:
    """A process from its start to its end.

    Args:
        given: `address` to connect to, `stacks` to write stacks to when asked by a signal, `log_level`, `name`.
        reads: The messages that come in.
        run: What it does; whether it ended because it was told to.
    """
    _end_with_parent()
    # The process that started this one is told to end, and ends this one in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stacks = open(given["stacks"], "w")  # noqa: SIM115  # as long as the process
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    logging.basicConfig(level=given["log_level"], format=f"%(asctime)s %(levelname)s {given['name']}: %(message)s")
    line = Line.connect(given["address"], reads)
    line.send(wire.Hello())
    well = False
    try:
        well = run(line)
    finally:
        line.close(patience=LAST_WORDS_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        # No destructors: the model's threads and the device are the system's to take back, at once.
        os._exit(0 if well else 1)


def receive_setup(line: Line) -> wire.Setup:
    """What to run.

    Raises:
        InvalidConfigError: The server is of another version.
    """
    setup = line.receive(None)
    if not isinstance(setup, wire.Setup) or setup.format != wire.FORMAT:
        raise InvalidConfigError("this process and the server that started it are not of one version")
    return setup


def _end_with_parent() -> None:
    """End this process when its parent has ended, whatever it is doing.

    The parent holds the other end of standard input, and writes nothing to it. When it is gone the system sends a signal, which
    also ends a process that hangs within a library and runs no thread of Python's; a thread waits for the end besides.
    """
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_wait_for_end, name="parent", daemon=True).start()


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


__all__ = ["receive_setup", "work"]

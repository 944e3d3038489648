"""What may hang within a plugin's code in this process: waited for, and left behind."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from ..errors import StartupError

T = TypeVar("T")
LOOK_SECONDS = 0.2


def within(seconds: float, work: Callable[[], T], *, unless: Callable[[], bool]) -> T:
    """What work comes to.

    Args:
        seconds: That it may take.
        work: It goes on in its thread, where it takes longer: nothing can end it.
        unless: Whether nobody wants it any more.

    Raises:
        StartupError: It takes longer; the message says what it was doing.
    """
    made: Future[T] = Future()

    def run() -> None:
        try:
            made.set_result(work())
        except BaseException as error:
            made.set_exception(error)

    thread = threading.Thread(target=run, name="engine-find", daemon=True)
    thread.start()
    until = time.monotonic() + seconds
    while not wait([made], LOOK_SECONDS).done:
        if unless():
            raise StartupError("the model is not wanted any more")
        if time.monotonic() > until:
            frame = sys._current_frames().get(thread.ident or 0)
            stack = "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""
            raise StartupError(f"finding the model and its plugin takes more than {seconds:g} s:\n{stack}")
    return made.result()

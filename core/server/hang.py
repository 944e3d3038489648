"""What may hang within a plugin's code in this process: waited for, and left behind."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..errors import StartupError

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What work comes to.

    Raises:
        StartupError: It takes longer; the message says what it was doing. Nothing can end it: it goes on in its thread.
    """
    made: Future[T] = Future()

    def run() -> None:
        try:
            made.set_result(work())
        except BaseException as error:
            made.set_exception(error)

    thread = threading.Thread(target=run, name="engine-find", daemon=True)
    thread.start()
    try:
        return made.result(seconds)
    except TimeoutError:
        if made.done():  # it is the work's own
            raise
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""
        raise StartupError(f"finding the model and its plugin takes more than {seconds:g} s:\n{stack}") from None

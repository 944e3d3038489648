"""Child processes for work that may hang or crash: one that takes too long is killed, and nobody else notices.

A thread cannot be stopped, and a fault in native code takes its whole process along. A child reads requests from one pipe and
writes answers to another; what they look like is its own business, and nothing is pickled.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, BinaryIO

Child = Callable[[BinaryIO, BinaryIO], None]
"""What a child does: reads requests until there are no more, and writes answers."""
# -P keeps the current folder off the child's path; the parent's path is handed on, so both see the same packages.
_START = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import run; run(*sys.argv[2:])"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Threads of libraries that load with others take address space by the number of cores."""


class ChildError(Exception):
    """A child ended, or was ended because its time was over."""

    def __init__(self, exit_status: int | None, *, timed_out: bool) -> None:
        super().__init__(f"the process ended with exit status {exit_status}")
        self.timed_out = timed_out


class ChildProcess:
    """One child.

    Args:
        entry: `"module:function"`, a `Child`.
        memory_bytes: Address space that it may take, where the system can bound it.
    """

    def __init__(self, entry: str, memory_bytes: int) -> None:
        self._killed = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps(sys.path), entry, str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # Ctrl-C is the parent's to answer
        )
        self.requests, self.answers = _pipe(self._process.stdin), _pipe(self._process.stdout)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return not self._killed and self._process.poll() is None

    def within(self, seconds: float, stall: float | None = None) -> Exchange:
        """A time in which to ask it and to hear its answer.

        Args:
            seconds: Until it is killed.
            stall: Until it is killed unless it has been heard of again (`Exchange.heard`).
        """
        return Exchange(self, seconds, stall)

    def kill(self) -> None:
        """End it, whatever it does; its pipes end too, so that nobody waits for it."""
        self._killed = True
        self._process.kill()

    def close(self) -> None:
        """End it and free its pipes."""
        self.kill()
        for pipe in (self.requests, self.answers):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
        self._process.wait()

    @property
    def exit_status(self) -> int | None:
        """How it ended; None: it runs."""
        return self._process.poll()


_BROKEN = (OSError, EOFError, ValueError, TypeError, LookupError)
"""What comes of a pipe that ends, or of an answer that is none."""


class Exchange:
    """A request and its answer, as a context: a pipe that breaks or ends within it is a `ChildError`. Made by `within`."""

    def __init__(self, child: ChildProcess, seconds: float, stall: float | None) -> None:
        self.child = child
        self._deadline = time.monotonic() + seconds
        self._stall = stall
        self._heard = time.monotonic()
        self._timer: threading.Timer | None = None
        self._over = self._timed_out = False
        self._lock = threading.Lock()

    def heard(self) -> None:
        """Something of the answer has come."""
        self._heard = time.monotonic()

    def line(self) -> bytes:
        """The next line of the answer."""
        found = self.child.answers.readline()
        if not found.endswith(b"\n"):
            raise EOFError
        self.heard()
        return found

    def exactly(self, count: int) -> bytearray:
        """So many bytes of the answer."""
        made = bytearray(count)
        view, at = memoryview(made), 0
        while at < count:
            read = self.child.answers.readinto(view[at:])  # type: ignore[attr-defined]  # a pipe's reader has it
            if not read:
                raise EOFError
            at += read
            self.heard()
        return made

    def __enter__(self) -> Exchange:
        self._watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
        if isinstance(error, _BROKEN) or (error is None and self._timed_out):
            self.child.close()
            raise ChildError(self.child.exit_status, timed_out=self._timed_out) from error
        if error is not None:
            self.child.close()  # what is left of its answer would be taken for the next one's

    def _ends(self) -> float:
        """When it is to be killed, as far as is known."""
        return self._deadline if self._stall is None else min(self._deadline, self._heard + self._stall)

    def _watch(self) -> None:
        """Look again when its time may be over; kill it if it is."""
        with self._lock:
            if self._over:
                return
            left = self._ends() - time.monotonic()
            if left <= 0:
                self._timed_out = True
                self.child.kill()
                return
            self._timer = threading.Timer(left, self._watch)
            self._timer.daemon = True
            self._timer.start()


def run(entry: str, memory_bytes: str) -> None:
    """What the new process does."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints does not answer
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    module, _, name = entry.partition(":")
    child: Child = getattr(importlib.import_module(module), name)
    child(requests, answers)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


__all__ = ["Child", "ChildError", "ChildProcess", "Exchange", "run"]

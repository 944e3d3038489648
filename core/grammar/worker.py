"""A child process that compiles grammars before the engine does: one that takes too long is killed with its process.

A thread cannot be stopped, and a grammar that grows without end would take the engine's memory along. What the child has
compiled in time, the engine compiles too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

START_SECONDS = 120.0
"""For a child to start and to read the tokenizer, which is no grammar's fault."""
MEMORY_BYTES = 2 * 2**30
"""Address space that a child may take, where the system can bound it."""
# -P keeps the current folder off the child's path; the parent's path is handed on, so both see the same packages.
_CHILD = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import child; child()"


class Tried(NamedTuple):
    """What the child says of a grammar.

    Attributes:
        problem: What is wrong with it, if anything.
        num_bytes: What it takes, compiled; 0 where the system does not tell.
    """

    problem: str | None
    num_bytes: int


class WorkerError(Exception):
    """The child ended, or was ended because its time was over."""

    def __init__(self, what: str, *, timed_out: bool) -> None:
        super().__init__(what)
        self.timed_out = timed_out


class Worker:
    """One child, started and ready.

    Args:
        setup: What `make_tokenizer` takes.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the engine's to answer
        )
        self._ask(setup, START_SECONDS)

    def try_out(self, grammar: str, seconds: float) -> Tried:
        """Compile a grammar and compute its first mask.

        Raises:
            WorkerError: It took too long, or the process did not live through it.
        """
        return Tried(*self._ask({"grammar": grammar}, seconds))

    def _ask(self, message: dict[str, Any], seconds: float) -> list[Any]:
        with self._ended_after(seconds):
            try:
                _pipe(self._process.stdin).write(json.dumps(message) + "\n")
                _pipe(self._process.stdin).flush()
                line = _pipe(self._process.stdout).readline()
            except (OSError, ValueError):
                line = ""
        if not line.endswith("\n"):
            timed_out = self._ended
            self.close()
            raise WorkerError(f"its compiler ended with exit status {self._process.returncode}", timed_out=timed_out)
        answer: list[Any] = json.loads(line)
        return answer

    @contextlib.contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(max(0.0, seconds), self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self) -> None:
        self._ended = True
        self._process.kill()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return not self._ended and self._process.poll() is None

    def close(self) -> None:
        """End the child."""
        self._end()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                _pipe(pipe).close()
        self._process.wait()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def make_tokenizer(setup: dict[str, Any]) -> Any:
    """llguidance's view of a tokenizer.

    Args:
        setup: `tokenizer`, the description of a fast tokenizer; `n_vocab`; `eos`, the ids that end a text.
    """
    from llguidance import LLTokenizer

    return LLTokenizer(setup["tokenizer"], n_vocab=setup["n_vocab"], eos_token=setup["eos"])


def compile_grammar(tokenizer: Any, grammar: str) -> Any:
    """A grammar at its beginning; `is_error()` tells whether it is one."""
    from llguidance import LLMatcher

    return LLMatcher(tokenizer, grammar, log_level=0)


def child() -> None:
    """What the child does: reads a line, compiles, writes a line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints does not answer
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    tokenizer = make_tokenizer(json.loads(sys.stdin.readline()))
    _say(answers, Tried(None, 0))
    for line in sys.stdin:
        before = _allocated()
        matcher = compile_grammar(tokenizer, json.loads(line)["grammar"])
        if not matcher.is_error():
            matcher.compute_bitmask()
        _say(answers, Tried(matcher.get_error() if matcher.is_error() else None, max(0, _allocated() - before)))
        del matcher


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, whatever it is compiling."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _say(answers: IO[str], answer: Tried) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def _allocated() -> int:
    """Bytes that this process has been given and not given back; 0 where its C library does not count."""
    try:
        info = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):
        return 0
    info.restype = _MallInfo
    found = info()
    return int(found.uordblks + found.hblkhd)

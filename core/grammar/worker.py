"""A child process that compiles grammars before the engine does: one that takes too long is killed with its process.

A thread cannot be stopped, and a grammar that grows without end would take the engine's memory along. What the child has
compiled in time, the engine compiles too.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any, BinaryIO, NamedTuple

from ..child_process import ChildProcess

START_SECONDS = 120.0
"""For a child to start and to read the tokenizer, which is no grammar's fault."""
MEMORY_BYTES = 2 * 2**30
"""Address space that a child may take, where the system can bound it."""


class Tried(NamedTuple):
    """What the child says of a grammar.

    Attributes:
        problem: What is wrong with it, if anything.
        num_bytes: What it takes, compiled; 0 where the system does not tell.
    """

    problem: str | None
    num_bytes: int


class Worker:
    """One child, started and ready.

    Args:
        setup: What `make_tokenizer` takes.

    Raises:
        ChildError: It did not live through its start.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self._child = ChildProcess(f"{__name__}:child", MEMORY_BYTES)
        self._ask(setup, START_SECONDS)

    def try_out(self, grammar: str, seconds: float) -> Tried:
        """Compile a grammar and compute its first mask.

        Raises:
            ChildError: It took too long, or the process did not live through it.
        """
        return Tried(*self._ask({"grammar": grammar}, seconds))

    def _ask(self, message: dict[str, Any], seconds: float) -> list[Any]:
        with self._child.within(seconds) as exchange:
            self._child.requests.write(json.dumps(message).encode() + b"\n")
            self._child.requests.flush()
            answer: list[Any] = json.loads(exchange.line())
        return answer

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._child.alive

    def close(self) -> None:
        """End the child."""
        self._child.close()


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


def child(requests: BinaryIO, answers: BinaryIO) -> None:
    """What the child does: reads a line, compiles, writes a line."""
    tokenizer = make_tokenizer(json.loads(requests.readline()))
    _say(answers, Tried(None, 0))
    for line in requests:
        before = _allocated()
        matcher = compile_grammar(tokenizer, json.loads(line)["grammar"])
        if not matcher.is_error():
            matcher.compute_bitmask()
        _say(answers, Tried(matcher.get_error() if matcher.is_error() else None, max(0, _allocated() - before)))
        del matcher


def _say(answers: BinaryIO, answer: Tried) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
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

"""Grammars → matchers, in the thread of whoever asks: never within a step. Each grammar once, bad ones too."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

from ..cache.lru import ByteLRU
from ..child_process import ChildError
from ..errors import GrammarError, InvalidRequestError, ServerError
from ..sampling.structured import GrammarSource
from .cursor import Grammar
from .worker import Worker, compile_grammar, make_tokenizer

SECONDS = 5.0
"""For one grammar to be compiled, a free child included."""
CACHE_BYTES = 64 * 2**20
BYTES_PER_CHAR, BYTES_AT_LEAST = 256, 64 * 1024
"""What a compiled grammar is taken to hold at least; it grows while it is used."""
MAX_COMPILED_BYTES = 64 * 2**20
"""For one compiled grammar: a dozen characters can ask for that much."""
MAX_WORKERS = 2
REFUSED_FOR = 60.0
"""Seconds for which a grammar that took too long is not tried again."""


class Compiled(NamedTuple):
    """What became of a grammar.

    Attributes:
        grammar: Compiled; None for one that was refused.
        code, problem: Why it was refused.
        size: Bytes that it is taken to hold.
        until: When it may be tried again.
    """

    grammar: Grammar | None
    code: str
    problem: str
    size: int
    until: float = float("inf")


class GrammarCompiler:
    """Compiles grammars for one tokenizer.

    Args:
        tokenizer: The HF tokenizer.
        vocab_size: Of the model.
        eos_token_ids: The model's end tokens: a text may end with any of them.
        seconds: For one grammar.
    """

    def __init__(
        self, tokenizer: Any, vocab_size: int, eos_token_ids: Collection[int], *, seconds: float = SECONDS
    ) -> None:
        self.tokenizer, self.seconds = tokenizer, seconds
        self.num_tokens = max(vocab_size, len(tokenizer))
        self._eos = sorted(eos_token_ids)
        self._known: ByteLRU[Compiled] = ByteLRU(CACHE_BYTES, lambda c: c.size)
        self._flights: dict[bytes, Future[Compiled]] = {}
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._places = threading.Semaphore(MAX_WORKERS)
        self._closed = False

    def compile(self, source: GrammarSource) -> Grammar:
        """Compile a grammar, or find it compiled.

        Raises:
            GrammarError: It is none (`invalid_grammar`), or takes too long (`grammar_timeout`).
            InvalidRequestError: Structured output cannot be had here.
        """
        found = self._find(source)
        if found.grammar is None:
            raise GrammarError(found.problem, code=found.code, param="sampling_params.structured_outputs")
        return found.grammar

    def _find(self, source: GrammarSource) -> Compiled:
        key = hashlib.sha256(f"{source.kind}\0{source.text}".encode()).digest()
        with self._lock:
            found = self._known.get(key)
            if found is not None and time.monotonic() < found.until:
                return found
            flight, mine = self._flights.get(key), False
            if flight is None:
                flight, mine = self._flights.setdefault(key, Future()), True
        if mine:  # others who ask for the same wait for this one
            try:
                found = self._make(source)
                self._known.put(key, found)
                flight.set_result(found)
            except BaseException as e:
                flight.set_exception(e)
            finally:
                with self._lock:
                    del self._flights[key]
        return flight.result()

    def _make(self, source: GrammarSource) -> Compiled:
        setup = self._setup
        try:
            grammar = _serialised(source)
            with self._worker(setup) as (worker, deadline):
                problem, size = worker.try_out(grammar, min(self.seconds, deadline - time.monotonic()))
            if problem is None and size > MAX_COMPILED_BYTES:
                problem = f"compiled it has {size >> 20} MiB; the limit is {MAX_COMPILED_BYTES >> 20}"
            if problem is None:
                matcher = compile_grammar(self._ll_tokenizer, grammar)
                if not matcher.is_error():
                    size = max(size, BYTES_AT_LEAST, BYTES_PER_CHAR * len(source.text))
                    return Compiled(Grammar(matcher, self.num_tokens), "", "", size)
                problem = matcher.get_error()
        except ValueError as e:
            problem = str(e)
        except ChildError as e:
            if e.timed_out:
                what = (
                    f"structured_outputs: the {source.kind} is not compiled within {self.seconds:g} s; make it simpler"
                )
                return Compiled(None, "grammar_timeout", what, BYTES_AT_LEAST, time.monotonic() + REFUSED_FOR)
            problem = f"its compiler gave up: {e}"
        except TimeoutError:
            what = f"structured_outputs: no compiler was free within {self.seconds:g} s; try again later"
            return Compiled(None, "grammar_timeout", what, BYTES_AT_LEAST, until=0.0)
        what = f"structured_outputs: the {source.kind} is refused: {_in_short(problem)}"
        return Compiled(None, "invalid_grammar", what, BYTES_AT_LEAST)

    @contextlib.contextmanager
    def _worker(self, setup: dict[str, Any]) -> Iterator[tuple[Worker, float]]:
        """A child of one's own and until when it may work; it is there for the next one when it has lived through this.

        To wait for one counts, to start one does not.
        """
        deadline = time.monotonic() + self.seconds
        if not self._places.acquire(timeout=self.seconds):
            raise TimeoutError
        try:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or not worker.alive:
                worker, deadline = self._start(setup), time.monotonic() + self.seconds
            try:
                yield worker, deadline
            finally:
                with self._lock:
                    keep = worker.alive and not self._closed
                    if keep:
                        self._idle.append(worker)
                if not keep:
                    worker.close()
        finally:
            self._places.release()

    def _start(self, setup: dict[str, Any]) -> Worker:
        try:
            return Worker(setup)
        except (OSError, ChildError) as e:
            raise ServerError(f"the process that compiles grammars cannot be started: {e}") from e

    @cached_property
    def _setup(self) -> dict[str, Any]:
        """What a child, and the engine itself, makes its tokenizer of."""
        try:
            import llguidance  # noqa: F401
        except ImportError:
            raise _unsupported('needs llguidance: pip install "engine-plugin-sdk[grammar]"') from None
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise _unsupported("needs a fast tokenizer, and this model has none")
        if not self._eos:
            raise _unsupported("needs an end token, and this model has none")
        backend = copy(backend)
        backend.no_padding()
        backend.no_truncation()
        return {"tokenizer": backend.to_str(), "n_vocab": self.num_tokens, "eos": self._eos}

    @cached_property
    def _ll_tokenizer(self) -> Any:
        return make_tokenizer(self._setup)

    def close(self) -> None:
        """End the children. What is compiled stays good."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for worker in idle:
            worker.close()


def _serialised(source: GrammarSource) -> str:
    """A grammar in the form that llguidance compiles."""
    from llguidance import LLMatcher

    made = {
        "json": LLMatcher.grammar_from_json_schema,
        "regex": LLMatcher.grammar_from_regex,
        "grammar": LLMatcher.grammar_from_lark,
    }
    text: str = made[source.kind](source.text)
    return text


def _in_short(problem: str) -> str:
    if problem.startswith("NoExtension"):  # llguidance's own word for it
        return "no text fits it"
    return " ".join(problem.split())[:300] or "no reason given"


def _unsupported(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"structured_outputs {what}", code="unsupported_parameter", param="sampling_params.structured_outputs"
    )

"""Checks the laws about one architecture: each once, those that it needs first, and no law is lost in silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple

from .law import Broken, Law, LawResult, NotApplicable, Status
from .levels import IN_PROCESS, LEVELS, laws_up_to
from .place import place_of
from .runtime import Runtime, find_runtime
from .subject import Subject


class Report(NamedTuple):
    """What was found about one architecture.

    Attributes:
        architecture: What was checked.
        plugin: Whose it is.
        results: One for each law, by level.
    """

    architecture: str
    plugin: str
    results: tuple[LawResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no law is broken."""
        return all(result.status != "failed" for result in self.results)


class Suite:
    """The laws about one architecture and what is known of them so far; a context manager.

    Args:
        architecture: The HF architecture string.
        runtime: The engine; by default, the installed one.
    """

    def __init__(self, architecture: str, runtime: Runtime | None = None) -> None:
        self.subject = Subject(architecture, runtime or find_runtime())
        self._results: dict[str, LawResult] = {}
        self._laws = {law.id: law for laws in LEVELS.values() for law in laws}

    def __enter__(self) -> Suite:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the model and remove the tiny checkpoint."""
        self.subject.close()

    def check(self, law_id: str) -> LawResult:
        """Check one law, or tell what it gave before."""
        if law_id not in self._results:
            law = self._laws[law_id]
            start = time.perf_counter()
            self._results[law_id] = replace(self._check(law), docs=law.docs, seconds=time.perf_counter() - start)
        return self._results[law_id]

    def _checked(self, laws: Iterable[Law], told: Callable[[LawResult], object]) -> tuple[LawResult, ...]:
        """Check laws in their order; `told` is called with each result as it is known."""
        results = []
        for law in laws:
            results.append(self.check(law.id))
            told(results[-1])
        return tuple(results)

    def _check(self, law: Law) -> LawResult:
        for needed in law.needs:
            before = self.check(needed)
            if before.status == "failed":
                return _result(law, "skipped", f"not checked: it needs {needed}, which failed")
            if before.status == "skipped":  # with the same reason: what does not apply, or the law that failed first
                return _result(law, "skipped", before.detail)
        self.subject.trying = ""
        try:
            return _result(law, "passed", law.check(self.subject))
        except NotApplicable as reason:
            return _result(law, "skipped", str(reason))
        except Broken as broken:
            return _result(law, "failed", broken.what, broken.smallest, broken.cause)
        except Exception as error:
            return _result(law, "failed", f"{type(error).__name__}: {error}", self.subject.trying, place_of(error))


def verify(
    architecture: str,
    level: int = IN_PROCESS,
    lowest: int = 0,
    *,
    runtime: Runtime | None = None,
    told: Callable[[LawResult], object] = id,
) -> Report:
    """Check every law up to a level.

    Args:
        architecture: The HF architecture string.
        level: The highest level.
        lowest: The lowest level; what its laws need of lower ones is checked and not reported.
        runtime: The engine; by default, the installed one.
        told: Called with each result as it is known.
    """
    with Suite(architecture, runtime) as suite:
        results = suite._checked(laws_up_to(level, lowest), told)
        return Report(architecture, suite.subject.describe(), results)


def _result(law: Law, status: Status, detail: str, smallest: str = "", cause: str = "") -> LawResult:
    return LawResult(law.id, law.level, law.statement, status, detail, smallest, cause)

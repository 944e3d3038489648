"""Starts a system in a process of its own, so that thread pools do not meet, and asks it for figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cases import CASES, Figures
from .systems import environment

ROOT = Path(__file__).parents[1]


class WorkerError(RuntimeError):
    """A system's process ended."""


class Worker:
    """One system with one model; `run` measures a case once.

    Args:
        name: Of the system.
        folder: The checkpoint.
        python: The interpreter of the environment where it is installed.

    Raises:
        WorkerError: It could not be made.
    """

    def __init__(self, name: str, folder: Path, python: Path) -> None:
        self.name, self.started = name, time.perf_counter()
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [str(python), "-m", "benchmarks.serve", name, str(folder)],
            cwd=ROOT,
            env={**os.environ, **environment(name, python)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
        )
        self._answer()

    def run(self, case: str, seed: int) -> Figures:
        """Measure once; where the case is about a fresh process, from the moment it was started.

        Raises:
            WorkerError: It cannot.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([case, seed]) + "\n")
        self.process.stdin.flush()
        figures: Figures = self._answer()
        return figures | ({"start_s": time.perf_counter() - self.started} if CASES[case].fresh else {})

    @property
    def ended(self) -> bool:
        """Whether there is nobody to ask any more."""
        return self.process.poll() is not None

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.said.close()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.said.seek(0)
        last = [x.strip() for x in self.said.read().splitlines() if x.strip()][-1:]
        raise WorkerError(f"{self.name}: {last[0] if last else f'ended with {self.process.returncode}'}")


class Workers:
    """The processes for one model.

    Args:
        folder: The checkpoint.
        pythons: System → interpreter, where it is not this one; a system's variants run by the same.
    """

    def __init__(self, folder: Path, pythons: Mapping[str, Path]) -> None:
        self.folder, self.pythons = folder, pythons
        self._kept: dict[str, Worker] = {}

    def fresh(self, name: str) -> Worker:
        """A new process, which the caller closes."""
        return Worker(name, self.folder, self.pythons.get(name.split("-")[0], Path(sys.executable)))

    def kept(self, name: str) -> Worker:
        """The one process of this system; a new one where a case ended the last."""
        if name in self._kept and self._kept[name].ended:
            self._kept.pop(name).close()
        if name not in self._kept:
            self._kept[name] = self.fresh(name)
        return self._kept[name]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._kept.values():
            worker.close()

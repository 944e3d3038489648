"""`engine serve` in a process of its own, on a free port of this machine: what the conformance kit drives by HTTP."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence

from .errors import EngineDeadError

PATIENCE = 120.0
"""Seconds in which it must be up, and in which it must end."""
KEPT = 40
"""Lines of its log that are remembered."""
# The path is handed on, so that it finds the same packages, those of a source folder among them.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from core.cli import run; sys.exit(run(sys.argv[2:]))"
)


class ServerProcess:
    """A server and the log that it wrote.

    Args:
        model: What it serves.
        name: What clients call it.
        options: Further arguments of `engine serve`.

    Raises:
        EngineDeadError: It did not come up; the message has the end of its log.
    """

    def __init__(self, model: str, name: str, options: Sequence[str] = ()) -> None:
        arguments = ["serve", model, "--port", "0", "--served-model-name", name, *options]
        self.model = name
        self._log: collections.deque[str] = collections.deque(maxlen=KEPT)
        self._url = ""
        self._up = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps(sys.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._up.wait(PATIENCE)
        if not self._url:
            self.close()
            raise EngineDeadError(f"engine serve did not come up: {self.log or 'it wrote nothing'}")

    def _read(self) -> None:
        """Keep the end of its log, and find where it listens."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line.rstrip())
            found = re.search(r"serves (http\S+)/v1", line)
            if found:
                self._url = found[1]
                self._up.set()
        self._up.set()

    @property
    def url(self) -> str:
        """Where it is, such as `http://127.0.0.1:40123`."""
        return self._url

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(line for line in self._log if line)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

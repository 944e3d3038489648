"""`engine serve` in a process of its own, as the benchmarks of serving hold it, and what its processes take."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import TracebackType

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Served:
    """A server, from when it answers until it is left.

    Args:
        arguments: Of `engine serve`.
    """

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "core.cli", "serve", "--port", "0", "--log-level", "warning", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        lines: deque[str] = deque(maxlen=50)
        for line in self.process.stderr:
            lines.append(line)
            if found := re.search(r"serves (http\S+)/v1", line):
                self.url = found[1]
                break
        else:
            raise RuntimeError(f"the server did not start:\n{''.join(lines)}")

    def parts(self) -> dict[str, int]:
        """What each process is → its number."""
        found = {"server": self.process.pid}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and _parent(folder) == self.process.pid:
                name = re.search(rb'"name": "(\w+)"', (folder / "cmdline").read_bytes())
                if name is not None:
                    found[name[1].decode()] = int(folder.name)
        return found

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.communicate()


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):  # it has ended meanwhile
        return 0


def cpu_seconds(pid: int) -> float:
    """Of the processors, for a process with all its threads, since its start."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / TICKS


def own_mib(pid: int) -> float:
    """MiB of memory that a process shares with nobody's file."""
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident - shared) * PAGE / 2**20

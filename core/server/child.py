"""A process that a server starts, as the process that started it holds it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ..errors import StartupError
from .line import Line

_CODE = f"""
import importlib, json, os, sys
given = json.loads(sys.argv[1])
elsewhere = [p for p in given["path"] if p in sys.path or (p and os.path.realpath(p) != given["here"])]
sys.path[:] = elsewhere + [p for p in sys.path if p not in elsewhere]
importlib.import_module(f"{__package__}.{{given['name']}}").main(given)
"""
"""Modules are looked for where the parent looks, but not in the current folder for being the current one (nor with -P)."""
MAX_STACKS = 64 * 1024
_WHOLE = re.compile(r'"<string>", line \d+ in <module>')
"""The last line of all stacks: the main thread's is the last one, and its first frame is in the code above."""
_LAST_SECONDS = 5.0
"""For the system to take away a process that has ended."""
_LONGEST_FOLDER = 64
"""A socket's path has room for a hundred characters or so."""


class Child:
    """Started, not forked: it shares no memory and no locks, and nothing is on its path that is not on ours.

    Its standard input is a pipe that nobody writes to, whose end tells it of ours; we hold the reading end of another one, whose
    end tells us of its. Its socket lies in a folder that no other user may enter.

    Args:
        name: Of the module beside this one whose `main` it runs.
        reads: The messages that come from it.

    Raises:
        StartupError: There is no place for that folder.
    """

    def __init__(self, name: str, reads: Any) -> None:
        self._folder = _own_folder()
        self._stacks = self._folder / "stacks"
        address = f"ipc://{self._folder / 'line'}"
        self.line = Line.bind(address, reads)
        level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
        given = {
            "address": address,
            "stacks": str(self._stacks),
            "path": sys.path,
            "here": os.path.realpath(os.curdir),
            "log_level": level,
            "name": name,
        }
        self.lifeline, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE, json.dumps(given)],
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=2,  # what a plugin prints is no output of ours
                pass_fds=(theirs,),
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether it has, or is about to."""
        return bool(select.select([self.lifeline], [], [], 0)[0])

    def how_it_ended(self) -> str:
        """How, in words."""
        until, found = time.monotonic() + _LAST_SECONDS, None
        while found is None and time.monotonic() < until:
            # Not taken out of the system's table yet: `end` needs its number to mean this process.
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if found is None:
                time.sleep(0.01)
        if found is None:
            return "its process has shut its end of the line"
        if found.si_code == os.CLD_EXITED:
            return f"its process ended with exit status {found.si_status}"
        name = signal.Signals(found.si_status).name if found.si_status in set(signal.Signals) else str(found.si_status)
        hint = " (killed: by somebody, or by the system for want of memory)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"

    def stacks(self, patience: float = 0.0) -> str:
        """What its threads were doing when it crashed. With `patience`, it is asked, and given so many seconds to answer."""
        if patience:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGUSR1)
            until = time.monotonic() + patience
            while time.monotonic() < until and not _WHOLE.search(self._written()):
                time.sleep(0.02)
        return self._written()

    def _written(self) -> str:
        try:
            return self._stacks.read_text(errors="replace")[:MAX_STACKS]
        except OSError:
            return ""

    def end(self, patience: float = 0.0) -> None:
        """End it, after so many seconds by force, and take back what it held."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        if self._process.returncode is None:
            # All of its session: what it has started must not stay behind either.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        os.close(self.lifeline)
        self.line.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _own_folder() -> Path:
    """A new folder that no other user may enter."""
    try:
        place = tempfile.gettempdir()
        return Path(tempfile.mkdtemp(prefix="engine-", dir=place if len(place) <= _LONGEST_FOLDER else "/tmp"))
    except OSError as e:
        raise StartupError(
            f"a process needs a folder for its sockets, and none can be made ({e.strerror or e}); "
            "set TMPDIR to one that can be written"
        ) from e


def _environment() -> dict[str, str]:
    """This process's, without the empty entries of PYTHONPATH: each would be the current folder."""
    environment = dict(os.environ)
    path = [entry for entry in environment.pop("PYTHONPATH", "").split(os.pathsep) if entry]
    return environment | ({"PYTHONPATH": os.pathsep.join(path)} if path else {})


__all__ = ["Child"]

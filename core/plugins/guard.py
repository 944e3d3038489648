"""Watches an import of plugin code: what it changes in the process is put back and told.

A plugin serves one architecture in a process that serves others, so importing it may not change the environment, the
working folder, logging, signal handlers or torch's defaults for everybody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import TextIOBase
from typing import Any

SLOW_IMPORT_SECONDS = 5.0
HEAVY_MODULES = ("torch", "transformers", "numpy")
OWN_THREADS = "engine"
"""How names of the engine's own threads begin: other models are looked for and started meanwhile."""
TURN_SECONDS = 60.0
_turn = threading.RLock()


class PluginWarning(UserWarning):
    """A plugin did something that it should not, and the engine went on."""


@dataclass
class Watch:
    """What one import did.

    Attributes:
        changes: Sentences without a subject, e.g. `"set the environment variable OMP_NUM_THREADS (restored)"`.
        heavy: Which of torch, transformers and numpy it loaded.
        cuda: Whether it initialised CUDA.
    """

    changes: list[str] = field(default_factory=list)
    heavy: tuple[str, ...] = ()
    cuda: bool = False


@dataclass(frozen=True)
class _State:
    """The parts of the process that an import may not change."""

    environment: dict[str, str]
    folder: str | None
    level: int
    disabled: int
    handlers: tuple[logging.Handler, ...]
    signals: dict[int, Any]
    torch: tuple[Any, Any] | None
    threads: frozenset[threading.Thread]
    heavy: frozenset[str]
    cuda: bool


@contextlib.contextmanager
def watch_import(*, environment: bool = True, slow_after: float = SLOW_IMPORT_SECONDS) -> Iterator[Watch]:
    """Compare the process before and after the block, put back what can be, and fill the `Watch`.

    Args:
        environment: Whether variables are put back; not where the block imports torch and the like, which set some.
        slow_after: Seconds after which an import is called slow.
    """
    with _own_turn():
        yield from _watched(environment, slow_after)


@contextlib.contextmanager
def _own_turn() -> Iterator[None]:
    """One import at a time: two that are watched side by side would be taken for one another, and put back each other's
    standard output. One that hangs holds up no other for ever."""
    mine = _turn.acquire(timeout=TURN_SECONDS)
    try:
        yield
    finally:
        if mine:
            _turn.release()


def _watched(environment: bool, slow_after: float) -> Iterator[Watch]:
    watch, before, started = Watch(), _look(), time.perf_counter()
    printed = _Told(sys.stderr)
    try:
        with contextlib.redirect_stdout(printed):
            yield watch
    finally:
        seconds = time.perf_counter() - started
        if printed.text:
            watch.changes.append(f"printed {printed.text[:60]!r} (sent to stderr)")
        if seconds > slow_after:
            watch.changes.append(f"took {seconds:.1f} s to import")
        after = _look()
        watch.heavy = tuple(name for name in HEAVY_MODULES if name in after.heavy - before.heavy)
        watch.cuda = after.cuda and not before.cuda
        watch.changes += _restored(before, after, environment)


def _look() -> _State:
    root = logging.getLogger()
    return _State(
        environment=dict(os.environ),
        folder=_folder(),
        level=root.level,
        disabled=root.manager.disable,
        handlers=tuple(root.handlers),
        signals={number: signal.getsignal(number) for number in signal.valid_signals()},
        torch=_torch_defaults(),
        threads=frozenset(threading.enumerate()),
        heavy=frozenset(name for name in HEAVY_MODULES if name in sys.modules),
        cuda=_cuda_is_initialised(),
    )


def _restored(before: _State, after: _State, environment: bool) -> Iterator[str]:
    """Put back what differs; one sentence for each thing that did."""
    if environment:
        for name in sorted(set(before.environment) | set(after.environment)):
            if before.environment.get(name) != after.environment.get(name):
                verb = "removed" if name not in after.environment else "set"
                yield f"{verb} the environment variable {name} (restored)"
                os.environ.pop(name, None)
                if name in before.environment:
                    os.environ[name] = before.environment[name]
    if before.folder and after.folder != before.folder:
        os.chdir(before.folder)
        yield f"changed the working folder to {after.folder} (restored)"
    yield from _restored_logging(before, after)
    yield from _restored_signals(before, after)
    yield from _restored_torch(before, after)
    new = (thread.name for thread in threading.enumerate() if thread not in before.threads)
    started = [name for name in new if not name.startswith(OWN_THREADS)]
    if started:
        yield f"started the threads {', '.join(started)} (still running)"


def _restored_logging(before: _State, after: _State) -> Iterator[str]:
    root = logging.getLogger()
    if after.level != before.level:
        root.setLevel(before.level)
        yield f"changed the root logger's level to {logging.getLevelName(after.level)} (restored)"
    if after.disabled != before.disabled:
        logging.disable(before.disabled)
        yield "disabled logging (restored)"
    if after.handlers != before.handlers:
        root.handlers[:] = before.handlers
        yield "changed the root logger's handlers (restored)"


def _restored_torch(before: _State, after: _State) -> Iterator[str]:
    if after.torch is None:
        return
    torch: Any = sys.modules["torch"]
    dtype, device = before.torch or (torch.float32, torch.device("cpu"))
    if after.torch != (dtype, device):
        torch.set_default_dtype(dtype)
        # None and not "cpu": a default that is set explicitly makes every call of torch slower.
        torch.set_default_device(None if device.type == "cpu" else device)
        yield f"changed torch's defaults to {after.torch[0]} on {after.torch[1]} (restored)"


def _restored_signals(before: _State, after: _State) -> Iterator[str]:
    for number, handler in before.signals.items():
        if after.signals.get(number) == handler:
            continue
        name = getattr(number, "name", str(number))
        try:
            signal.signal(number, handler)
            yield f"changed the handler of {name} (restored)"
        except (ValueError, TypeError, OSError):  # not the main thread, or a handler that Python did not set
            yield f"changed the handler of {name} (could not be restored)"


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _torch_defaults() -> tuple[Any, Any] | None:
    """(dtype, device) that new tensors get; `None` while torch is not loaded."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_device"):
        return None
    return torch.get_default_dtype(), torch.get_default_device()


def _cuda_is_initialised() -> bool:
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    return bool(cuda is not None and hasattr(cuda, "is_initialized") and cuda.is_initialized())


class _Told(TextIOBase):
    """Stands in for stdout, which may carry JSON: passes text on to stderr and remembers that there was some."""

    def __init__(self, target: Any) -> None:
        self._target, self.text = target, ""

    def write(self, text: str) -> int:
        self.text += text[: max(0, 200 - len(self.text))]
        if self._target is not None:
            self._target.write(text)
        return len(text)

    def flush(self) -> None:
        if self._target is not None:
            self._target.flush()

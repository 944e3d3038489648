"""Imports a plugin module in a child process and tells what it says and what it loaded. Torch-free itself."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from .._faults import beside, in_words

HEAVY = ("torch", "transformers", "numpy", "tokenizers", "safetensors", "PIL")
"""What a plugin module must not load."""
_MARK = "engine-probe:"
# -P keeps the current folder off the child's path; the parent's path is handed on, so both see the same packages.
_CHILD = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import child; child(sys.argv[2])"


@dataclass(frozen=True)
class Probe:
    """What importing a plugin module by itself showed.

    Attributes:
        error: Why it could not be imported or asked; empty if it could.
        architectures, model_types: What its hook says.
        heavy: Heavy library → the line that first asked for it.
    """

    error: str
    architectures: frozenset[str]
    model_types: frozenset[str]
    heavy: dict[str, str]


def probe(module: str, timeout: float = 60.0) -> Probe:
    """Import a plugin module in a child process, call its hook, and import its capabilities function and its options."""
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), module]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Probe(f"importing it took more than {timeout:.0f} s", frozenset(), frozenset(), {})
    line = next((text for text in reversed(done.stdout.splitlines()) if text.startswith(_MARK)), None)
    if line is None:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(f"the process that imported it ended with {done.returncode}: {last}", frozenset(), frozenset(), {})
    said: dict[str, Any] = json.loads(line.removeprefix(_MARK))
    return Probe(said["error"], frozenset(said["architectures"]), frozenset(said["model_types"]), said["heavy"])


class _Watch:
    """A finder that finds nothing and notes who asked first for each heavy library."""

    def __init__(self) -> None:
        self.asked: dict[str, str] = {}

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in HEAVY and name not in self.asked:
            frames = [
                f for f in traceback.extract_stack()[:-1] if not f.filename.startswith("<") and f.filename != __file__
            ]
            known = [f for f in frames if not f.filename.endswith("importlib/__init__.py")]
            self.asked[name] = f"{known[-1].filename}:{known[-1].lineno} {known[-1].line}" if known else ""


def child(module: str) -> None:
    """The child's whole work."""
    watch = _Watch()
    sys.meta_path.insert(0, watch)
    said: dict[str, Any] = {"error": "", "architectures": [], "model_types": []}
    try:
        records = importlib.import_module(module).engine_architectures()
        if not isinstance(records, list | tuple):
            raise TypeError(f"engine_architectures() must return a list of sdk.Architecture, not {records!r:.80}")
        said["architectures"] = [record.name for record in records]
        said["model_types"] = [name for record in records for name in record.model_types]
        for record in records:
            for target in (record.capabilities, record.options):
                if isinstance(target, str):
                    importlib.import_module(target.partition(":")[0])
    except BaseException as error:
        name = error.name if isinstance(error, ModuleNotFoundError) else None
        hint = beside(name) if name and name.split(".")[0] == module.split(".")[0] else ""
        said["error"] = ". ".join(filter(None, (f"{type(error).__name__}: {in_words(error)}", hint)))
    said["heavy"] = {name: place for name, place in watch.asked.items() if name in sys.modules}
    print(f"\n{_MARK}{json.dumps(said)}", flush=True)

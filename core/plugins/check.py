"""`engine plugins list --check`: imports each plugin in a child process of its own and tells what broke.

A child may hang, print, exit or crash without harm to the list or to the other plugins.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdk.errors import EngineError

from .status import PluginStatus

if TYPE_CHECKING:
    from .catalog import Catalog

_CHECKED = ("ready", "conflict", "quarantined")
# -P keeps the current folder off the child's path; the parent's path is handed on, so both see the same packages.
_CHILD = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import child; child(sys.argv[2])"


def check_plugins(catalog: Catalog, *, timeout: float, workers: int) -> list[PluginStatus]:
    """The status of every plugin, those that may be used imported in a child process.

    Args:
        catalog: What is installed.
        timeout: Seconds after which a child is ended and its plugin called broken.
        workers: How many children run at a time.
    """

    def check(status: PluginStatus) -> PluginStatus:
        if status.state not in _CHECKED:
            return status
        return _merged(status, _run(status.distribution, timeout))

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return list(pool.map(check, catalog.plugins()))


def child(distribution: str) -> None:
    """The child's whole work: resolve every architecture of one distribution and print what happened as JSON."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the plugin prints, also from C, goes to stderr
    errors, told = {}, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in _architectures(distribution):
            from .catalog import Catalog

            try:
                Catalog.installed().resolve(name, pins={name: distribution})
            except EngineError as error:
                errors[name] = str(error)
        told = [str(warning.message) for warning in caught]
    with answer:
        json.dump({"errors": errors, "warnings": sorted(set(told))}, answer)


def _architectures(distribution: str) -> list[str]:
    from .catalog import Catalog

    return [
        claim.name
        for claim in Catalog.installed().claims()
        if claim.distribution == distribution and claim.kind == "architecture"
    ]


def _run(distribution: str, timeout: float) -> dict[str, Any]:
    """Run one child; whatever becomes of it is an answer."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), distribution],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        output, complaint = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        return {"errors": {"": f"importing it did not finish within {timeout:g} s"}}
    try:
        answer: dict[str, Any] = json.loads(output)
        return answer
    except ValueError:
        last = (complaint.strip().splitlines() or ["no message"])[-1]
        return {"errors": {"": f"importing it ended the process with exit status {process.returncode}: {last[:200]}"}}


def _end(process: subprocess.Popen[str]) -> None:
    """End the child and whatever it started, which would keep its pipes open."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.communicate()


def _merged(status: PluginStatus, answer: dict[str, Any]) -> PluginStatus:
    errors = list(dict.fromkeys(answer.get("errors", {}).values()))
    told = answer.get("warnings", [])
    if errors:
        return replace(status, state="quarantined", reason="; ".join(errors))
    return replace(status, reason="; ".join([*([status.reason] if status.reason else []), *told]))

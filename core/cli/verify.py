"""`engine plugins verify`: the conformance kit on the command line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..plugins import PluginWarning, parse_pins
from .output import as_json
from .verify_report import as_dict, show, tell


def verify(
    plugin: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="Architecture, scheme, distribution, or a plugin's folder.")
    ],
    level: Annotated[int, typer.Option("--level", min=0, max=6, help="Highest level; 6 starts a server.")] = 5,
    only: Annotated[bool, typer.Option("--only", help="That level alone.")] = False,
    pin: Annotated[
        list[str] | None, typer.Option("--plugin", help="Architecture=distribution, where two claim one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove a plugin: its source, weights and processor, its worst case, and that it computes what transformers computes,
    whatever shares the engine with it.

    Exit code 0 when no law is broken, 1 when one is. Everything runs offline, on a tiny random checkpoint.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sdk.testing.schemes import verify_scheme
    from sdk.testing.suite import verify as check

    from ..runtime import CoreRuntime

    runtime = CoreRuntime(parse_pins(pin or []))
    reports = []
    with _found(plugin) as name, _quiet():
        told = tell if not json and sys.stderr.isatty() else id
        levels = level, level if only else 0
        for architecture in runtime.architectures(name):
            reports.append(check(architecture, *levels, runtime=runtime, told=told))
            if not json:
                show(reports[-1])
        for scheme in runtime.schemes(name):
            reports.append(verify_scheme(scheme, *levels, runtime=runtime, told=told))
            if not json:
                show(reports[-1])
    if json:
        print(as_json([as_dict(report) for report in reports]))
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@contextlib.contextmanager
def _found(plugin: str) -> Iterator[str]:
    """The name to ask for; for a source folder, for as long as it is on the path."""
    if not (Path(plugin) / "pyproject.toml").is_file() and not plugin.startswith((".", "/", "~")):
        yield plugin
        return
    from sdk.testing.source_folder import on_path

    with on_path(Path(plugin).expanduser()) as distribution:
        yield distribution


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither progress bars of the libraries nor notes about the copy of a plugin that the source folder hides."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # advice to who calls HF's processors by hand
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        yield

"""The answer when nobody runs what was asked for: what to install, or where to read on."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from sdk.errors import PluginMissingError

from .claims import Claim
from .requirements import pip_line


@functools.cache
def known_plugins() -> Mapping[str, str]:
    """Architecture → distribution, for the plugins that this project owns; other names are not ours to recommend."""
    text = Path(__file__).parents[1].joinpath("known_plugins.json").read_text("utf-8")
    return {architecture: name for name, architectures in json.loads(text).items() for architecture in architectures}


def missing_architecture(architecture: str, claims: Iterable[Claim]) -> PluginMissingError:
    """The error for an architecture that no usable distribution claims."""
    claims = list(claims)
    message = f"No installed plugin runs {architecture}"
    disabled = sorted({claim.plugin for claim in claims if claim.name == architecture and claim.state == "disabled"})
    known = known_plugins().get(architecture)
    if disabled:
        message += f" and may be used: {', '.join(disabled)} does, but ENGINE_PLUGINS leaves it out; add it there"
    elif known:
        message += f"; try: {pip_line(known)}"
    else:
        message += (
            "."
            + _near(architecture, claims, "architecture")
            + (
                " Look for a package that provides the entry point group engine.v1 for it,"
                " or write a plugin: engine plugins new NAME makes one that works, to be changed into yours."
            )
        )
    return PluginMissingError(message, param="architecture")


def missing_model_type(
    model_type: str, role: str, claims: Iterable[Claim], others: Iterable[str] = ()
) -> PluginMissingError:
    """The error for a sub-config whose model_type nobody answers; `others` answer it in another role."""
    claims = list(claims)
    message = f"No installed plugin runs model_type {model_type!r} as {role}."
    disabled = sorted({claim.plugin for claim in claims if claim.name == model_type and claim.state == "disabled"})
    if others:
        message += f" It is answered by {', '.join(others)}."
    if disabled:
        message += f" {', '.join(disabled)} may, but ENGINE_PLUGINS leaves it out; add it there."
    message += _near(model_type, claims, "model_type") + (
        " A plugin answers one by its entry point group engine.v1.model_types."
    )
    return PluginMissingError(message, param="model_type")


def _near(name: str, claims: Iterable[Claim], kind: str) -> str:
    """What is installed and has a name like it."""
    names = {claim.name for claim in claims if claim.kind == kind and not claim.is_fallback}
    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
    return f" Installed and of a similar name: {', '.join(near)}." if near else ""

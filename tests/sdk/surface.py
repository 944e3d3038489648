"""The SDK's surface as text: what a plugin may rely on. `python -m tests.sdk.surface` writes it down anew."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

PACKAGES = (
    "sdk",
    "sdk.errors",
    "sdk.layers",
    "sdk.multimodal",
    "sdk.quantization",
    "sdk.testing",
    "sdk.transcription",
    "sdk.weights",
)
SNAPSHOT = Path(__file__).with_name("surface.txt")


def surface() -> str:
    """A line for each public name, and one for each public method, property and field of the classes among them."""
    return "\n".join(line for package in PACKAGES for line in _package(package)) + "\n"


def _package(package: str) -> Iterator[str]:
    module = importlib.import_module(package)
    yield f"# {package}"
    for name in sorted(_public(module)):
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from _class(name, value)
        elif not isinstance(value, ModuleType):
            yield f"{name}{_signature(value)}" if callable(value) else f"{name}: {type(value).__name__}"


def _public(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return [name for name in own if not name.startswith("_")]


def _class(name: str, cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    if issubclass(cls, BaseModel):  # its signature is pydantic's words, which change with its version
        yield f"class {name}({bases})"
        yield from (f"    {field}{'' if info.is_required() else '=…'}" for field, info in cls.model_fields.items())
    else:
        yield f"class {name}({bases}){_signature(cls)}"
    members: dict[str, Any] = {}
    for base in reversed([base for base in cls.__mro__ if base is cls or _only_inherited(base)]):
        members |= vars(base)
    for member, value in sorted(members.items()):
        if member.startswith(("__", "model_config", "extra_repr")) or (member.startswith("_") and not _is_hook(member)):
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        kind = {classmethod: "classmethod ", staticmethod: "staticmethod ", property: "property "}.get(type(value), "")
        yield f"    {kind}{member}{_signature(function) if inspect.isfunction(function) else ''}"


def _only_inherited(base: type) -> bool:
    """Whether a base class is ours and has no place of its own here, where its members would stand."""
    named = {name for package in PACKAGES for name in _public(importlib.import_module(package))}
    return base.__module__.startswith("sdk") and base.__name__ not in named


def _is_hook(name: str) -> bool:
    """Names that authors override though they begin with an underscore, as the field has it."""
    return name.startswith(("_get_", "_call_hf_", "_apply_hf_"))


def _signature(value: Any) -> str:
    try:
        return str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""


if __name__ == "__main__":
    SNAPSHOT.write_text(surface())

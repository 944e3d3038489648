"""What is wrong in a plugin's own module, in words for its author."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from pydantic import ValidationError


def in_words(error: BaseException) -> str:
    """An exception's text in one line; of a record that is not accepted, each entry and what is wrong with it."""
    if isinstance(error, ValidationError):
        faults = ((".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors(include_url=False))
        return f"{error.title}: " + "; ".join(f"{name}: {said}" if name else said for name, said in faults)
    return " ".join(str(error).split()) or "no message"


def beside(name: str) -> str:
    """What the package of a missing module has, as a sentence; `""` where there is no such package either."""
    package, _, missing = name.rpartition(".")
    try:
        path = importlib.import_module(package).__path__ if package else []
    except (ImportError, AttributeError):
        return ""
    there = sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))
    near = difflib.get_close_matches(missing, there, 1)
    if near:
        return f"{package} has no {missing}; did you mean {package}.{near[0]}?"
    return f"{package} has no {missing}; it has: {', '.join(there)}" if there else ""

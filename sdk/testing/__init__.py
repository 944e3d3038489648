"""What plugin authors test with: tiny checkpoints, the reference runner, the conformance kit. Loads nothing by itself.

law.py        a law and the result of checking it     levels/    the laws, one file a level
subject.py    what is checked: one architecture       suite.py   runs laws, each once, those it needs first
runtime.py    the engine, as the kit sees it          conformance.py   the same under pytest
samples.py    prompts and media, made anew            sizes.py   items by size, and the search for the worst
needles.py    prompts whose answers must not change   reference.py   a model by itself, and transformers' own
by_http.py    the same answers through a server       diagnosis.py   from numbers to where to look
place.py      from exceptions to where they arose     probe.py       a plugin module in a process of its own
schemes.py    a quantization scheme in the place of an architecture   scheme_laws.py   its laws
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

__getattr__, __dir__, _names = attach(
    __name__,
    {
        "Conformance": "conformance",
        "Law": "law",
        "LawResult": "law",
        "Runtime": "runtime",
        "SchemeConformance": "conformance",
        "Suite": "suite",
        "find_runtime": "runtime",
        "reference": "reference",
        "tiny": "tiny",
        "verify": "suite",
        "verify_scheme": "schemes",
    },
)
__all__ = _names

if TYPE_CHECKING:
    from . import reference as reference
    from . import tiny as tiny
    from .conformance import Conformance as Conformance
    from .conformance import SchemeConformance as SchemeConformance
    from .law import Law as Law
    from .law import LawResult as LawResult
    from .runtime import Runtime as Runtime
    from .runtime import find_runtime as find_runtime
    from .schemes import verify_scheme as verify_scheme
    from .suite import Suite as Suite
    from .suite import verify as verify

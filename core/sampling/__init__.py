"""What a caller may ask of sampling, validated before anything is scheduled.

params.py    SamplingParams             structured.py   StructuredOutputs: the shapes that a text may be held to
checks.py    one value, checked and named
"""

from .params import LogitsProcessor, SamplingParams
from .structured import StructuredOutputs

__all__ = ["LogitsProcessor", "SamplingParams", "StructuredOutputs"]

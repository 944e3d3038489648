"""`/classify`: the request, in the form that vLLM's users know."""

from __future__ import annotations

from .pooling import Inputs, PoolingBody


class ClassifyRequest(PoolingBody):
    """Say which class texts are of.

    Attributes:
        input: The texts.
    """

    input: Inputs

"""Vectors, classes and scores in the place of text.

params.py    PoolingParams            head.py      from hidden states to results, at the end of a step
tasks.py     what a model is used for outputs.py   what users get
prompts.py   texts and pairs → tokens calls.py     a list of texts, or a query and documents, as prompts and back
async_call.py  such a call in an event loop
"""

from .outputs import ClassificationOutput, EmbeddingOutput, ScoringOutput
from .params import PoolingParams

__all__ = ["ClassificationOutput", "EmbeddingOutput", "PoolingParams", "ScoringOutput"]

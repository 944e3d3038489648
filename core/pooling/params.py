"""`PoolingParams`: what a request asks of a model that pools."""

from __future__ import annotations

from dataclasses import dataclass

from sdk.pooling import POOLING_TASKS, PoolingTask

from ..errors import InvalidRequestError, shown
from ..outputs import RequestOutputKind
from ..sampling import SamplingParams

NO_TOKENS = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)
"""How the tokens are chosen of a request that has none."""


@dataclass(frozen=True)
class PoolingParams:
    """What is made of one prompt.

    Attributes:
        task: `embed`, `classify` or `score`.
        dimensions: `embed`: keep this many of the vector's first numbers, as models trained for it allow.
        normalize: `embed`: whether the vector has length 1; None: as the model's folder says.
        truncate: Most tokens to read, or True for as many as the model takes; a longer prompt is cut at its end. None: it is
            refused.
    """

    task: PoolingTask = "embed"
    dimensions: int | None = None
    normalize: bool | None = None
    truncate: int | bool | None = None

    def __post_init__(self) -> None:
        if self.task not in POOLING_TASKS:
            raise InvalidRequestError(
                f"task is one of {', '.join(POOLING_TASKS)}, not {shown(self.task)}", param="task"
            )
        if self.dimensions is not None and (type(self.dimensions) is not int or self.dimensions < 1):
            raise InvalidRequestError(
                f"dimensions is a whole number from 1 on, not {shown(self.dimensions)}", param="dimensions"
            )
        if self.task != "embed" and (self.dimensions is not None or self.normalize is not None):
            raise InvalidRequestError(f"dimensions and normalize are for embeddings, not for {self.task}", param="task")
        if self.normalize is not None and type(self.normalize) is not bool:
            raise InvalidRequestError(
                f"normalize is True, False or None, not {shown(self.normalize)}", param="normalize"
            )
        if self.truncate is False:
            object.__setattr__(self, "truncate", None)
        elif self.truncate is not None and (not isinstance(self.truncate, int) or self.truncate < 1):
            raise InvalidRequestError(
                f"truncate is True or a whole number from 1 on, not {shown(self.truncate)}", param="truncate"
            )

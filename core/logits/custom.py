"""Functions that the caller brought, called for their own request's row. What they do wrong ends that request alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import InvalidRequestError
from ..sampling import LogitsProcessor


def run_processors(processors: Sequence[LogitsProcessor], output_ids: list[int], row: Tensor) -> Tensor:
    """Call them in turn.

    Args:
        processors: The functions.
        output_ids: Tokens generated so far.
        row: `(vocab,)` float32, theirs to change.

    Raises:
        InvalidRequestError: One raised, or returned something else than such a row.
    """
    for processor in processors:
        name = getattr(processor, "__qualname__", type(processor).__qualname__)
        try:
            made = processor(list(output_ids), row)
        except Exception as e:
            raise _error(f"{name} raised {type(e).__name__}: {e!s:.200}") from e
        if not isinstance(made, Tensor) or made.shape != row.shape or not made.is_floating_point():
            got = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise _error(f"{name} must return logits {tuple(row.shape)}, not {got}")
        row = made.to(row)
        if not (row < float("inf")).all():  # NaN compares false too; minus infinity forbids a token
            raise _error(f"{name} returned NaN or infinity")
    return row


def _error(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"logits_processors: {what}", code="logits_processor_error", param="sampling_params.logits_processors"
    )

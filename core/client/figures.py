"""From what clients saw to figures: how long until the first token, how long between tokens, how many in a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from statistics import fmean
from typing import Any

from .load import Sample, Work

QUANTILES = (0.5, 0.9, 0.99)
TIMES = {
    "time_to_first_token": "Time to first token",
    "inter_token_latency": "Between tokens",
    "time_per_output_token": "Per token after the first",
    "latency": "Whole request",
}
"""Name of a time in seconds → its line in the table."""


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which so large a share lies, between its neighbours where it falls between two."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def figures(work: Work, samples: Sequence[Sample]) -> dict[str, Any]:
    """Everything, as JSON has it; times in seconds. Requests that failed are counted and nothing else of them."""
    good = [sample for sample in samples if sample.error is None]
    taken = max((s.end for s in samples), default=0.0) - min((s.start for s in samples), default=0.0)
    tokens, prompt_tokens = sum(s.tokens for s in good), sum(s.prompt_tokens for s in good)
    return {
        "work": asdict(work),
        "completed": len(good),
        "failed": len(samples) - len(good),
        "errors": _errors(samples),
        "seconds": taken,
        "prompt_tokens": prompt_tokens,
        "output_tokens": tokens,
        "requests_per_second": _rate(len(good), taken),
        "output_tokens_per_second": _rate(tokens, taken),
        "total_tokens_per_second": _rate(tokens + prompt_tokens, taken),
        **{name: _spread(values) for name, values in _times(good).items()},
    }


def _errors(samples: Sequence[Sample]) -> dict[str, Any]:
    """Kinds of errors, the most frequent first: how many there were, and what one of them said."""
    counts = Counter(sample.error for sample in samples if sample.error is not None)
    said = {sample.error: sample.message for sample in samples if sample.error is not None}
    return {kind: {"count": count, "message": said[kind]} for kind, count in counts.most_common()}


def _times(samples: Sequence[Sample]) -> dict[str, list[float]]:
    told = [s for s in samples if s.arrivals]
    return {
        "time_to_first_token": [s.arrivals[0] - s.start for s in told],
        "inter_token_latency": [after - before for s in told for before, after in pairwise(s.arrivals)],
        "time_per_output_token": [(s.arrivals[-1] - s.arrivals[0]) / (s.tokens - 1) for s in told if s.tokens > 1],
        "latency": [s.end - s.start for s in samples],
    }


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and quantiles; None where there is nothing."""
    if not values:
        return None
    return {"mean": fmean(values), **{f"p{share * 100:g}": quantile(values, share) for share in QUANTILES}}

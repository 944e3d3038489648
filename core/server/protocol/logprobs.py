"""Log-probabilities as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...outputs import Logprob
from .base import finite

Found = Mapping[int, Logprob]


def for_chat(token_ids: Sequence[int], logprobs: Sequence[Found] | None, most: int) -> dict[str, Any] | None:
    """Of `/v1/chat/completions`: each token, and the `most` likeliest in its place."""
    if logprobs is None:
        return None
    content = []
    for token, found in zip(token_ids, logprobs):
        ranked = sorted(found.values(), key=lambda p: p.rank)[:most]
        content.append({**_entry(found[token]), "top_logprobs": [_entry(p) for p in ranked]})
    return {"content": content, "refusal": None}


def _entry(p: Logprob) -> dict[str, Any]:
    # A token that is part of a character has no text of its own.
    whole = "\ufffd" not in p.decoded_token
    return {
        "token": p.decoded_token,
        "logprob": finite(p.logprob),
        "bytes": list(p.decoded_token.encode("utf-8", "replace")) if whole else None,
    }


def for_completion(
    token_ids: Sequence[int], logprobs: Sequence[Found | None] | None, most: int, offset: int = 0
) -> dict[str, Any] | None:
    """Of `/v1/completions`: four lists in parallel.

    Args:
        token_ids, logprobs: Of the text; None for a token without any before it.
        most: How many of the likeliest.
        offset: Where the text starts in the whole.
    """
    if logprobs is None:
        return None
    out: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token, found in zip(token_ids, logprobs):
        own = found[token] if found is not None else None
        text = own.decoded_token if own is not None else ""
        out["tokens"].append(text)
        out["token_logprobs"].append(finite(own.logprob) if own is not None else None)
        ranked = sorted(found.values(), key=lambda p: p.rank)[:most] if found is not None else []
        out["top_logprobs"].append({p.decoded_token: finite(p.logprob) for p in ranked} if found is not None else None)
        out["text_offset"].append(offset)
        offset += len(text)
    return out

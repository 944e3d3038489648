"""Texts and pairs of texts as tokens, cut to a length where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sdk.multimodal.processor import ProcessedPrompt

from ..errors import InvalidRequestError
from .params import PoolingParams

if TYPE_CHECKING:
    from ..inputs import InputProcessor

T = TypeVar("T")
PAIR = "text_pair"
"""In a prompt's mapping: the text that belongs to `prompt`, as the document to a query."""


def needs_own_way(form: Mapping[str, Any], params: PoolingParams) -> bool:
    """Whether a prompt is one that a model which generates would not get."""
    return PAIR in form or params.truncate is not None


def tokenized(
    inputs: InputProcessor, form: Mapping[str, Any], params: PoolingParams
) -> tuple[ProcessedPrompt, list[int]]:
    """A text, a pair or token ids, cut to what was asked for.

    Args:
        inputs: Of the model.
        form: `prompt` or `prompt_token_ids`, and maybe `text_pair`.
        params: How many tokens are read.

    Returns:
        The prompt, and which of the pair's texts each token is of; empty: all of the first.

    Raises:
        InvalidRequestError: It is another kind of prompt.
    """
    unknown = set(form) - {"prompt", "prompt_token_ids", PAIR}
    if unknown or ("prompt" in form) == ("prompt_token_ids" in form) or (PAIR in form and "prompt" not in form):
        raise InvalidRequestError(
            "a text that is paired or cut has 'prompt' and 'text_pair', 'prompt' alone or 'prompt_token_ids'; "
            f"got: {', '.join(map(str, form)) or 'nothing'}",
            param="prompt",
        )
    cut, most = params.truncate is not None, inputs.longest_prompt
    limit = most if params.truncate is None or params.truncate is True else min(params.truncate, most)
    if "prompt_token_ids" in form:
        given = inputs.check_ids(form["prompt_token_ids"])[:limit]
        return ProcessedPrompt(_not_empty(given)), []
    texts = [inputs.check_text(form[name], cut=cut) for name in ("prompt", PAIR) if name in form]
    _not_empty([text for text in texts if text])
    try:
        made = inputs.tokenizer(*texts, truncation=cut, max_length=limit if cut else None, verbose=False)
    except Exception as e:  # of the tokenizers library, e.g. where one of a pair is too short to give what is too much
        raise InvalidRequestError(f"the prompt cannot be cut to {limit} tokens: {e}", param="truncate") from e
    ids = list(made["input_ids"])
    if cut and len(ids) > limit:
        raise InvalidRequestError(
            f"the prompt cannot be cut to {limit} tokens: its special tokens alone are more", param="truncate"
        )
    return ProcessedPrompt(_not_empty(ids)), list(made.get("token_type_ids", ())) if PAIR in form else []


def _not_empty(found: list[T]) -> list[T]:
    if not found:
        raise InvalidRequestError("the prompt is empty", param="prompt")
    return found

"""The forms that a prompt may have, brought to one: a mapping of text or ids, and media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from .errors import InvalidRequestError, shown

MAX_HEADS = 64
TWO_PARTS = ("encoder_prompt", "decoder_prompt")


def as_mapping(prompt: Any) -> dict[str, Any]:
    """A prompt as a mapping; what is None in it is left out.

    Raises:
        InvalidRequestError: It is neither text nor ids nor a mapping.
    """
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if isinstance(prompt, Sequence) or hasattr(prompt, "tolist"):
        return {"prompt_token_ids": prompt}
    if not isinstance(prompt, Mapping):
        raise InvalidRequestError(
            f"a prompt is text, token ids or a mapping, not a {type(prompt).__name__}", param="prompt"
        )
    return {name: value for name, value in prompt.items() if value is not None}


def as_list(prompts: Any) -> list[Any]:
    """One prompt or several → a list. A list of whole numbers is one prompt.

    Raises:
        InvalidRequestError: It is neither.
    """
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if hasattr(prompts, "tolist"):
        prompts = prompts.tolist()
    if not isinstance(prompts, Sequence):
        raise InvalidRequestError(
            f"a prompt is text, token ids or a mapping, not a {type(prompts).__name__}", param="prompts"
        )
    if prompts and all(isinstance(p, Integral) and not isinstance(p, bool) for p in prompts):
        return [list(prompts)]
    return list(prompts)


def in_one_part(prompt: dict[str, Any]) -> dict[str, Any]:
    """`{"encoder_prompt": {media}, "decoder_prompt": text or ids}` as one mapping; any other prompt as it is.

    Raises:
        InvalidRequestError: A part is not what it must be.
    """
    if not any(part in prompt for part in TWO_PARTS):
        return prompt
    encoder = _part(prompt, "encoder_prompt", ("prompt", "prompt_token_ids", "multi_modal_data", "mm_processor_kwargs"))
    decoder = _part(prompt, "decoder_prompt", ("prompt", "prompt_token_ids"))
    for name in ("prompt", "prompt_token_ids"):
        value = encoder.pop(name, None)
        if value is not None and len(value):
            raise InvalidRequestError("the encoder takes media, no text", param=f"encoder_prompt.{name}")
    rest = {name: value for name, value in prompt.items() if name not in TWO_PARTS}
    twice = [name for name in rest if name in encoder or name in decoder]
    if twice:
        raise InvalidRequestError(f"the prompt has {twice[0]} beside its parts and in one of them", param=twice[0])
    return {**rest, **encoder, **(decoder or {"prompt": ""})}


def check_heads(value: Any, heads_of_layers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(layer, head) pairs of cross-attention.

    Args:
        value: As the caller gave them.
        heads_of_layers: How many each layer has; empty: the model has none.

    Raises:
        InvalidRequestError: They are no such pairs, or none of this model's.
    """
    pairs = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(pairs) > MAX_HEADS:
        raise InvalidRequestError(f"at most {MAX_HEADS} cross_attention_heads", param="cross_attention_heads")
    for pair in pairs:
        fits = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)
        if not fits or pair[0] >= len(heads_of_layers) or pair[1] >= heads_of_layers[pair[0]]:
            raise InvalidRequestError(
                f"cross_attention_heads are (layer, head) pairs of this model's {len(heads_of_layers)} layers of "
                f"cross-attention, not {shown(pair)}",
                param="cross_attention_heads",
            )
    return tuple((layer, head) for layer, head in pairs)


def _part(prompt: Mapping[str, Any], part: str, known: Sequence[str]) -> dict[str, Any]:
    value = prompt.get(part)
    found = {} if value is None else as_mapping(value)
    unknown = [str(name) for name in found if name not in known]
    if unknown:
        raise InvalidRequestError(f"{part} has {', '.join(unknown)}; it takes: {', '.join(known)}", param=part)
    return found

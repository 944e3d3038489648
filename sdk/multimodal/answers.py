"""What a plugin's hooks answered, checked before it is used: a wrong answer is told by what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .fields import MultiModalFieldConfig
from .updates import PromptUpdate


def checked_updates(answer: Any) -> list[PromptUpdate]:
    """What `_get_prompt_updates` answered.

    Raises:
        TypeError: It is no list of prompt updates.
    """
    wanted = "it must return a list of PromptReplacement or PromptInsertion"
    if not isinstance(answer, Iterable):
        raise TypeError(f"{wanted}, not {_what(answer)}")
    updates = list(answer)
    for update in updates:
        if not isinstance(update, PromptUpdate):
            raise TypeError(f"{wanted}; one item is {_what(update)}")
    return updates


def checked_fields(answer: Any) -> Mapping[str, MultiModalFieldConfig]:
    """What `_get_mm_fields_config` answered.

    Raises:
        TypeError: It is no mapping from names to fields.
    """
    wanted = "it must return a mapping from the names of tensors to MultiModalFieldConfig"
    if not isinstance(answer, Mapping):
        raise TypeError(f"{wanted}, not {_what(answer)}")
    for name, field in answer.items():
        if not isinstance(field, MultiModalFieldConfig):
            raise TypeError(f"{wanted}; {name!r} has {_what(field)}")
    return answer


def _what(value: Any) -> str:
    if value is None:
        return "None: is there a return?"
    if isinstance(value, PromptUpdate):
        return f"one {type(value).__name__}: put it into a list"
    return f"{value!r:.80}"

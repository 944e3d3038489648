"""What a caller wants of clips, checked against what the model can."""

from __future__ import annotations

from typing import Any, get_args

from sdk.speech import Task, Timestamps

from ..errors import InvalidRequestError, shown
from ..sampling import SamplingParams
from .piece import Wish
from .speech import Speech


def checked_wish(
    speech: Speech,
    *,
    language: str | None,
    to_language: str | None,
    task: Task,
    prompt: str | None,
    temperature: float,
    timestamps: Timestamps | None,
) -> Wish:
    """What is wanted, checked.

    Raises:
        InvalidRequestError: The task, the language, the time stamps or the prompt are none of this model's, or the temperature
            is none at all.
    """
    if task not in get_args(Task):
        raise InvalidRequestError(
            f"task is 'transcribe' or 'translate', not {shown(task)}", code="unsupported_task", param="task"
        )
    if to_language is not None and task != "translate":
        raise InvalidRequestError("to_language is for task='translate'", param="to_language")
    _check_timestamps(speech, timestamps)
    temperature = checked_temperature(temperature)
    if language is not None:
        language = speech.validate_language(language)
    if to_language is not None:
        to_language = speech.validate_language(to_language, "to_language")
    return Wish(task, language, to_language, _checked_prompt(speech, prompt), temperature, timestamps)


def checked_temperature(temperature: Any, param: str = "temperature") -> float:
    """A temperature to start at, within the bounds of any text's; the error names this parameter."""
    try:
        return SamplingParams(temperature=temperature).temperature
    except InvalidRequestError as e:
        e.param = param
        raise


def _check_timestamps(speech: Speech, timestamps: Any) -> None:
    if timestamps is None:
        return
    known = {"segment": speech.hooks.supports_segment_timestamp, "word": speech.hooks.supports_word_timestamp}
    if not isinstance(timestamps, str) or timestamps not in known:
        raise InvalidRequestError(
            f"timestamps is 'segment', 'word' or None, not {shown(timestamps)}", param="timestamps"
        )
    if not known[timestamps]:
        given = ", ".join(name for name, there in known.items() if there) or "none"
        raise InvalidRequestError(
            f"{speech.engine.plan.architecture} gives no time stamps of {timestamps}s; it gives: {given}",
            code="unsupported_parameter",
            param="timestamps",
        )


def _checked_prompt(speech: Speech, prompt: Any) -> str:
    """The text that comes before; it becomes part of the model's own prompt, so it may hold no control token."""
    if prompt is None:
        return ""
    inputs = speech.engine.inputs
    text: str = inputs.check_text(prompt)
    reserved = next((t for t in inputs.chat.added_tokens if t.strip() and t in text), None)
    if reserved is not None:
        raise InvalidRequestError(
            f"the prompt holds {reserved!r}, which is a token of the model's own; leave it out",
            code="reserved_token",
            param="prompt",
        )
    return text


__all__ = ["checked_temperature", "checked_wish"]

"""What is checked of a speech plugin when its class is made, besides the spelling and the signatures of its hooks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

_CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_KEYWORDS = ("audio", "stt_config", "model_config", "language", "task_type", "request_prompt", "to_language")
"""Arguments of `get_generation_prompt` in the older guides; fields of `SpeechToTextParams` now."""


def accept_keywords(cls: type) -> None:
    """Let the class write `get_generation_prompt` with the keywords of the older guides.

    Raises:
        TypeError: It asks for a keyword that there never was.
    """
    written = vars(cls).get("get_generation_prompt")
    if not isinstance(written, classmethod):
        return  # not written here, or wrongly, which the contract check says
    function = written.__func__
    parameters = list(inspect.signature(function).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if "audio" not in names:
        return
    unknown = [p.name for p in parameters if p.name in names and p.name not in _KEYWORDS and p.default is p.empty]
    if unknown:
        raise TypeError(
            f"{cls.__module__}.{cls.__qualname__}.get_generation_prompt asks for {', '.join(unknown)}; there are: "
            f"{', '.join(_KEYWORDS)}"
        )
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    wanted = [name for name in _KEYWORDS if takes_any or name in names]

    def get_generation_prompt(owner: type, params: Any) -> Any:
        return function(owner, **{name: getattr(params, name) for name in wanted})

    get_generation_prompt.__qualname__, get_generation_prompt.__doc__ = function.__qualname__, function.__doc__
    get_generation_prompt.__module__ = function.__module__
    cls.get_generation_prompt = classmethod(get_generation_prompt)  # type: ignore[attr-defined]


def check_languages(cls: type) -> None:
    """Check the table of languages.

    Raises:
        TypeError: There is none, or it maps anything but codes to names.
    """
    table, where = getattr(cls, "supported_languages", None), f"{cls.__module__}.{cls.__qualname__}.supported_languages"
    if not isinstance(table, Mapping) or not table:
        raise TypeError(f'{where} must map codes to names, e.g. {{"en": "English"}}, not {table!r:.80}')
    for code, name in table.items():
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise TypeError(f"{where}: {code!r:.40} is no code of a language; write ISO 639, e.g. 'en' or 'yue'")
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"{where}: {code!r} needs a name, not {name!r:.40}")
    names = [name.strip().casefold() for name in table.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TypeError(f"{where} has the name {twice!r} twice, so nobody could ask for either by it")


def check_promises(cls: type, base: type) -> None:
    """Check that what a class promises has a hook that keeps it.

    Raises:
        TypeError: A hook without a default is missing, or one that another needs.
    """
    where = f"{cls.__module__}.{cls.__qualname__}"
    for name in ("get_speech_to_text_config", "get_generation_prompt"):
        if not _written(cls, base, name):
            raise TypeError(f"{where} must write {name}")
    needed = (
        (cls.supports_segment_timestamp, "supports_segment_timestamp", "parse_segments"),  # type: ignore[attr-defined]
        (cls.supports_word_timestamp, "supports_word_timestamp", "parse_segments"),  # type: ignore[attr-defined]
        *((_written(cls, base, a), a, b) for a, b in _NEEDS),
    )
    for promised, promise, keeper in needed:
        if promised and not _written(cls, base, keeper):
            raise TypeError(f"{where} has {promise}, so it must write {keeper} too")


_NEEDS = (
    ("get_language_token_ids", "get_language_detection_prompt"),
    ("get_language_detection_prompt", "get_language_token_ids"),
    ("get_no_speech_token_id", "get_language_detection_prompt"),
)
"""Hooks of which one is of no use without the other."""


def _written(cls: type, base: type, name: str) -> bool:
    return getattr(cls, name).__func__ is not getattr(base, name).__func__

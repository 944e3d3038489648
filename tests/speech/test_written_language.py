"""Models that write the language down before the text where nobody said it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.errors import PluginRuntimeError
from sdk.transcription import SupportsTranscription

from .conftest import Open
from .fake import RATE, Speech, said

CODES = {"one": "en", "two": "de"}


class Writing(Speech):
    """Its first word is the language: `one` stands for English, `two` for German."""

    @classmethod
    def get_generation_prompt(cls, params: Any) -> Any:
        return super().get_generation_prompt(replace(params, language=params.language or "en"))

    @classmethod
    def validate_language(cls, language: str | None) -> str | None:
        return SupportsTranscription.validate_language.__func__(cls, language)  # type: ignore[attr-defined, no-any-return]

    @classmethod
    def split_language(cls, text: str) -> tuple[str | None, str]:
        first, _, rest = text.strip().partition(" ")
        return (CODES[first], rest) if first in CODES else (None, text)


def test_the_language_is_told_and_is_no_part_of_the_text(open_llm: Open) -> None:
    llm = open_llm(Writing)
    clips = [(said("two", "seven", "one"), RATE), (said("one", "nine"), RATE), (said("three", "two"), RATE)]
    made = llm.transcribe(clips)
    assert [(t.language, t.text) for t in made] == [("de", "seven one"), ("en", "nine"), (None, "three two")]
    assert [s.text for s in made[0].segments] == ["seven one"]


def test_where_the_caller_said_it_the_text_is_left_as_it_is(open_llm: Open) -> None:
    made = open_llm(Writing).transcribe((said("two", "seven"), RATE), language="en")
    assert (made.language, made.text) == ("en", "two seven")


def test_each_piece_of_a_clip_names_its_own_and_the_first_that_does_is_the_clips(open_llm: Open) -> None:
    first, second = said("three", *["four"] * 8, pause=0.13), said("two", "seven")  # cut after 3 s
    made = open_llm(Writing).transcribe((np.concatenate([first, second]), RATE))
    assert len(made.segments) == 2
    assert made.language == "de"
    assert made.text == "three four four four four four four four four seven"


@pytest.mark.parametrize("language", [None, "de"])
def test_streamed_text_is_that_of_the_whole(open_llm: Open, language: str | None) -> None:
    llm, clip = open_llm(Writing), (said("two", "seven", "three"), RATE)
    parts = list(llm.transcribe(clip, language=language, stream=True))
    whole = parts[-1].done
    assert whole is not None
    assert whole.language == "de"
    assert "".join(part.text for part in parts) == whole.text == llm.transcribe(clip, language=language).text


@pytest.mark.parametrize("wrong", [("en",), (1, "text"), (None, None), "en"], ids=str)
def test_a_hook_that_returns_something_else_is_named(open_llm: Open, wrong: Any) -> None:
    class Wrong(Writing):
        @classmethod
        def split_language(cls, text: str) -> Any:
            return wrong

    with pytest.raises(PluginRuntimeError, match="split_language"):
        open_llm(Wrong).transcribe((said("two"), RATE))

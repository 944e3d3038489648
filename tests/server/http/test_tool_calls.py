"""Calls of tools in answers and in streams: whatever pieces a text comes in, what is shown is what is no call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidRequestError
from core.outputs import CompletionOutput
from core.server.protocol.chat import NamedFunction, NamedTool
from core.server.tool_calls import HeldText, Tools
from core.tools import FORMATS, ToolParser

LISTED, TAGGED, BARE = FORMATS
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
DECLARED = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("add", "weather")]
FRAGMENTS = st.sampled_from([
    "Hello", " ", "\n", "<tool_call>", "</tool_call>", "<tool", "_call>", '{"name": "add", "arguments": {"a": 1}}', "{", "}",
    "[TOOL_CALLS]", "[TOOL", '[{"name": "add", "arguments": {}}]', "add[ARGS]{}", "<|python_tag|>", "<|",
    '{"name": "add", "parameters": {}}', ";", "é", "[", "<",
])  # fmt: skip


class Tokenizer:
    """As much of one as is looked at."""

    all_special_tokens = ("<s>", "</s>")

    def convert_tokens_to_ids(self, token: str) -> int:
        return 7


class Hiding(Tokenizer):
    """One whose marker is a token that no text shows."""

    all_special_tokens = ("<s>", "</s>", "[TOOL_CALLS]")


def tools(choice: Any = None, parallel: bool | None = None, tokenizer: Any = None) -> Tools:
    return Tools(DECLARED, choice, parallel, tokenizer or Tokenizer())


def ended(form: Any, text: str, last: str) -> CompletionOutput:
    read = ToolParser(form, ["add", "weather"], Tokenizer()).parse(text)
    return CompletionOutput(0, last, [1], finish_reason="stop", tool_calls=read.calls, content=read.content)


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(FRAGMENTS, min_size=1, max_size=8), form=st.sampled_from(FORMATS), cuts=st.integers(1, 4))
def test_R025_R096_a_stream_shows_what_is_no_call(pieces: list[str], form: Any, cuts: int) -> None:
    text = "".join(pieces)
    asked = tools()
    held = HeldText(asked)
    parts = [text[i : i + cuts] for i in range(0, len(text), cuts)]
    shown = "".join(held.add(CompletionOutput(0, part, [1])) for part in parts[:-1])
    last = ended(form, text, parts[-1])
    shown += held.add(last)
    said = asked.read(last, held.whole)
    shown += held.rest(said)
    assert held.whole == text
    assert shown == said.text or (said.calls and shown.strip() == said.text)
    if said.calls:
        assert form.marker not in said.text or form.marker not in shown[: len(shown) - len(said.text)]


def test_R096_text_before_a_call_is_shown_at_once() -> None:
    held = HeldText(tools())
    assert held.add(CompletionOutput(0, "Let me see", [1])) == "Let me see"
    assert held.add(CompletionOutput(0, ": <tool", [1])) == ":"
    assert held.add(CompletionOutput(0, "box is", [1])) == " <toolbox is"
    assert held.add(CompletionOutput(0, " <tool_call>{", [1])) == ""


def test_R096_a_marker_that_is_hidden_closes_the_text() -> None:
    held = HeldText(tools(tokenizer=Hiding()))
    assert held.add(CompletionOutput(0, "Well", [1])) == "Well"
    assert held.add(CompletionOutput(0, "add", [7, 8])) == ""
    assert held.add(CompletionOutput(0, "{}", [9])) == ""


def test_without_tools_all_is_text() -> None:
    held = HeldText(Tools(None, None, None, Tokenizer()))
    assert held.add(CompletionOutput(0, '<tool_call>{"', [1])) == '<tool_call>{"'


def test_a_tool_that_must_be_called() -> None:
    named = tools(NamedTool(type="function", function=NamedFunction(name="add")))
    assert named.structured() == {"json": SCHEMA}
    said = named.read(CompletionOutput(0, "", [1], finish_reason="stop"), '{"a": 5}')
    assert (said.text, said.calls[0].name, json.loads(said.calls[0].arguments)) == ("", "add", {"a": 5})
    cut = named.read(CompletionOutput(0, "", [1], finish_reason="length"), '{"a": ')
    assert (cut.text, list(cut.calls)) == ('{"a": ', [])


@pytest.mark.parametrize("parallel", [True, False])
def test_some_tool_must_be_called(parallel: bool) -> None:
    required = tools("required", parallel)
    structured = required.structured()
    assert structured is not None
    assert structured["json"].get("maxItems") == (None if parallel else 1)
    assert len(structured["json"]["items"]["anyOf"]) == 2
    text = '[{"name": "weather", "parameters": {"a": 1}}, {"name": "add", "parameters": {"a": 2}}]'
    assert [c.name for c in required.read(CompletionOutput(0, "", [1], finish_reason="stop"), text).calls] == [
        "weather",
        "add",
    ]


@pytest.mark.parametrize(
    ("declared", "choice"),
    [(None, "required"), ([], "required"), (DECLARED, NamedTool(type="function", function=NamedFunction(name="none")))],
)
def test_a_choice_that_is_none(declared: Any, choice: Any) -> None:
    with pytest.raises(InvalidRequestError):
        Tools(declared, choice, None, Tokenizer())


def test_no_tool_is_declared_where_none_may_be_called() -> None:
    assert Tools(DECLARED, "none", None, Tokenizer()).declared is None

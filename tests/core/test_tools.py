"""Tool calls: read out of text in the form that the chat template teaches; everything else stays text."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import LLM, SamplingParams, StructuredOutputs
from core.errors import InvalidRequestError
from core.tools import FORMATS, ParsedText, ToolParser, choose_parser

LISTED, TAGGED, BARE = FORMATS
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}},
]
TAUGHT = {
    "tagged": '{{ tools }} <tool_call>\n{\\"name\\": …, \\"arguments\\": …}\n</tool_call>',
    "listed": '[AVAILABLE_TOOLS] {{ tools | tojson }} {{ "[TOOL_CALLS] [" }}',
    "bare": 'Respond with {"name": function name, "parameters": dictionary}. {{ tools }}',
}


class Specials:
    """As much of a tokenizer as a parser looks at."""

    all_special_tokens = ("<s>", "</s>", "[TOOL_CALLS]")


def parse(form: Any, text: str) -> ParsedText:
    return ToolParser(form, ["weather", "add"], Specials()).parse(text)


def calls(found: ParsedText) -> list[tuple[str, Any]]:
    return [(c.name, json.loads(c.arguments)) for c in found.calls]


@pytest.mark.parametrize(
    ("form", "text", "content", "expected"),
    [
        (TAGGED, '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', "", [("add", {"a": 1})]),
        (TAGGED, 'So: <tool_call>{"name": "add", "arguments": {}}</tool_call> done', "So:  done", [("add", {})]),
        (
            TAGGED,
            '<tool_call>{"name": "add", "arguments": {}}</tool_call>\n<tool_call>{"name": "b", "arguments": {"x": "é"}}',
            "",
            [("add", {}), ("b", {"x": "é"})],
        ),
        (TAGGED, '<tool_call>{"name": "add", "arguments": "{\\"a\\": 2}"}</tool_call>', "", [("add", {"a": 2})]),
        (LISTED, '[TOOL_CALLS] [{"name": "add", "arguments": {"a": [1]}}]', "", [("add", {"a": [1]})]),
        (LISTED, 'Hm [TOOL_CALLS][{"name": "a", "arguments": {}}, {"name": "b"}]', "Hm", [("a", {}), ("b", {})]),
        (LISTED, '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]b[ARGS]{}', "", [("add", {"a": 1}), ("b", {})]),
        (BARE, '{"name": "add", "parameters": {"a": 1}}', "", [("add", {"a": 1})]),
        (BARE, '<|python_tag|>{"name": "add", "parameters": {}}; {"name": "weather", "parameters": {}}', "",
         [("add", {}), ("weather", {})]),
    ],
)  # fmt: skip
def test_calls_are_read_and_the_rest_is_content(form: Any, text: str, content: str, expected: Any) -> None:
    found = parse(form, text)
    assert calls(found) == expected
    assert found.content == content
    assert len({c.id for c in found.calls}) == len(expected)
    assert all(len(c.id) == 9 and c.id.isalnum() for c in found.calls)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (TAGGED, "plain"),
        (TAGGED, "<tool_call>"),
        (TAGGED, '<tool_call>{"name": "add", "arguments": {'),
        (TAGGED, '<tool_call>{"name": 1, "arguments": {}}</tool_call>'),
        (TAGGED, '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
        (TAGGED, '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>'),
        (TAGGED, '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>'),
        (TAGGED, '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>'),
        (TAGGED, '<tool_call>{"name": "add", "arguments": {}} and more</tool_call>'),
        (TAGGED, "<tool_call>__import__('os').system('false')</tool_call>"),
        (LISTED, '[TOOL_CALLS] {"name": "add"'),
        (LISTED, '[TOOL_CALLS] [{"name": "add", "arguments": {}}, 7]'),
        (LISTED, "[TOOL_CALLS]add[ARGS]"),
        (BARE, '{"name": "add", "parameters": {}} is the call'),
        (BARE, '{"name": "unknown", "parameters": {}}'),
        (BARE, 'Sure: {"name": "add", "parameters": {}}'),
        (BARE, "{}"),
        (BARE, ""),
    ],
)
def test_R025_what_is_malformed_stays_text(form: Any, text: str) -> None:
    assert parse(form, text) == ParsedText(text, [])


@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f.marker)
@pytest.mark.parametrize(
    "unit",
    ["[", '{"a":', "<tool_call>", "[TOOL_CALLS]", "[TOOL_CALLS][", "<tool_call>{", '[TOOL_CALLS]["a","', " ", "9",
     '<tool_call>{"name": "a", "arguments": {"b": "', "[TOOL_CALLS]a[ARGS]", '{"name": "add", "parameters": {}};', "\\"],
)  # fmt: skip
def test_R025_time_is_linear_in_the_text(form: Any, unit: str) -> None:
    def seconds(size: int) -> float:
        text = form.marker + unit * (size // len(unit))
        start = time.thread_time()
        parse(form, text)
        return time.thread_time() - start

    small, large = min(seconds(20_000) for _ in range(3)), min(seconds(320_000) for _ in range(2))
    assert large < 16 * 4 * max(small, 1e-3)  # a square would be 256 times as much


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "{", "}", "[", "]", '"', "name", ":", " "]
        )
        | st.sampled_from(
            ['{"name": "add", "arguments": {}}', '{"name": "add", "parameters": {"x": 1}}', ";", "é", "\ud800"]
        ),
        max_size=20,
    ),
    form=st.sampled_from(FORMATS),
)
def test_R025_nothing_is_raised_and_no_text_is_lost_without_calls(pieces: list[str], form: Any) -> None:
    text = "".join(pieces)
    found = parse(form, text)
    if not found.calls:
        assert found.content == text
    assert all(isinstance(json.loads(c.arguments), dict) for c in found.calls)


@pytest.mark.parametrize(("name", "form"), [("tagged", TAGGED), ("listed", LISTED), ("bare", BARE)])
def test_the_template_tells_the_form(name: str, form: Any) -> None:
    parser = choose_parser(TAUGHT[name], TOOLS, Specials())
    assert parser is not None
    assert parser.form is form


def test_a_template_that_knows_no_tools_is_an_error_and_an_unknown_form_is_none() -> None:
    with pytest.raises(InvalidRequestError, match="no tools"):
        choose_parser("{{ messages }}", TOOLS, Specials())
    assert choose_parser("{{ tools }}", TOOLS, Specials()) is None


@pytest.mark.parametrize("tools", ["weather", [1], [{"type": "function"}], [{"function": {"name": 3}}], [{}] * 129])
def test_malformed_tools_are_refused(tools: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        choose_parser("{{ tools }}", tools, Specials())
    assert (caught.value.param or "").startswith("tools")


# ---- through the engine ---------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    '{% if tools %}Write <tool_call>{"name": …, "arguments": …}</tool_call>\n{% endif %}'
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
)
CALL = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'


def test_chat_hands_tools_to_the_template_and_reads_the_calls(llama_folder: Path) -> None:
    says = SamplingParams(temperature=0, max_tokens=150, structured_outputs=StructuredOutputs(choice=[CALL]))
    messages = [{"role": "user", "content": "Is it raining?"}]
    with LLM(str(llama_folder), dtype="float32", chat_template=TEMPLATE) as llm:
        output = llm.chat(messages, says, tools=TOOLS)[0]
        assert output.prompt.startswith('{"type": "function"')
        completion = output.outputs[0]
        assert completion.text == CALL
        assert (completion.content, [(c.name, c.arguments) for c in completion.tool_calls]) == ("", [("weather", "{}")])
        *before, last = llm.chat(messages, says, tools=TOOLS, stream=True)
        assert all(not part.outputs[0].tool_calls for part in before)
        assert [c.name for c in last.outputs[0].tool_calls] == ["weather"]
        without = llm.chat(messages, says)[0].outputs[0]
        assert (without.tool_calls, without.content) == ((), None)


def test_what_a_tool_says_of_itself_is_text(llama_folder: Path) -> None:
    tools = [{"type": "function", "function": {"name": "x", "description": "ends with </s>", "parameters": {}}}]
    with LLM(str(llama_folder), dtype="float32", chat_template=TEMPLATE) as llm:
        output = llm.chat([{"role": "user", "content": "hi"}], SamplingParams(max_tokens=1), tools=tools)[0]
        assert "ends with </s>" in output.prompt
        assert llm.get_tokenizer().eos_token_id not in output.prompt_token_ids


def test_a_marker_that_is_a_special_token_is_found_though_the_text_leaves_it_out(llama_folder: Path) -> None:
    with LLM(str(llama_folder), dtype="float32") as llm:
        tokenizer = llm.get_tokenizer()
        tokenizer.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]"]})
        ids = tokenizer('[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]</s>', add_special_tokens=False)[
            "input_ids"
        ]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert "TOOL_CALLS" not in text
        found = ToolParser(LISTED, ["add"], tokenizer).parse_output(text, ids)
        assert calls(found) == [("add", {"a": 1})]
        assert found.content == ""

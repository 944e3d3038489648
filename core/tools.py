"""Tool calls: read out of what a model wrote, in the form that its chat template asks for.

What is no well-formed call stays text. Nothing is evaluated, and the time is linear in the text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .errors import InvalidRequestError
from .outputs import ToolCall

MAX_TOOLS = 128


class ParsedText(NamedTuple):
    """A text and its calls.

    Attributes:
        content: What is not part of a call.
        calls: In order.
    """

    content: str
    calls: list[ToolCall]


class _Piece(NamedTuple):
    """A stretch of text that is calls; `calls` is None where it is not well-formed."""

    start: int
    stop: int
    calls: list[ToolCall] | None


Reader = Callable[[str, Collection[str]], Iterator[_Piece]]


class ToolFormat(NamedTuple):
    """One way of writing calls.

    Attributes:
        marker: What begins a call; a tokenizer may have it as a special token.
        signs: Strings of a chat template that teaches this way: each of them.
        read: (text, names of the tools) → the stretches that are calls.
    """

    marker: str
    signs: tuple[str, ...]
    read: Reader


class ToolParser:
    """Reads the calls of one request.

    Args:
        form: How the model writes them.
        names: The tools that it was told of.
        tokenizer: The HF tokenizer.
    """

    def __init__(self, form: ToolFormat, names: Collection[str], tokenizer: Any) -> None:
        self.form, self.names, self.tokenizer = form, frozenset(names), tokenizer
        self._hidden = form.marker in tokenizer.all_special_tokens

    def parse_output(self, text: str, token_ids: Sequence[int]) -> ParsedText:
        """The calls of a completion: in its text, or in its tokens where the text leaves the marker out."""
        if not text or (self._hidden and self.form.marker not in text):
            text = str(self.tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            found = self.parse(text)
            return ParsedText(self._without_special_tokens(found.content), found.calls)
        return self.parse(text)

    def parse(self, text: str) -> ParsedText:
        """The calls in a text, and what is left of it without them."""
        content, calls, at = [], [], 0
        for piece in self.form.read(text, self.names):
            if piece.calls is not None:
                content.append(text[at : piece.start])
                calls += piece.calls
                at = piece.stop
        content.append(text[at:])
        return ParsedText("".join(content).strip() if calls else text, calls)

    def _without_special_tokens(self, text: str) -> str:
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text


def choose_parser(template: str, tools: Sequence[Any], tokenizer: Any) -> ToolParser | None:
    """The parser for what a chat template teaches; None when it is none of the known ways.

    Raises:
        InvalidRequestError: The tools are malformed, or the template does not speak of tools.
    """
    names = _names(tools)
    if "tools" not in template:
        raise InvalidRequestError(
            "this model's chat template knows no tools; give another with --chat-template or LLM(chat_template=…)",
            param="tools",
        )
    shown = template.replace('\\"', '"')  # as the model sees it, where Jinja has it in quotes
    form = next((f for f in FORMATS if all(sign in shown for sign in f.signs)), None)
    return ToolParser(form, names, tokenizer) if form is not None else None


def _names(tools: Any) -> list[str]:
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence) or len(tools) > MAX_TOOLS:
        raise InvalidRequestError(f"tools is a list of at most {MAX_TOOLS} tools", param="tools")
    names = []
    for i, tool in enumerate(tools):
        if callable(tool):
            names.append(str(getattr(tool, "__name__", "")))
            continue
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise InvalidRequestError(
                "a tool is a function, or a mapping {'type': 'function', 'function': {'name': …, 'parameters': …}}",
                param=f"tools.{i}",
            )
        names.append(name)
    return names


# ---- the ways in which models write calls ---------------------------------------------------------------------------


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _value_at(text: str, at: int) -> tuple[Any, int] | None:
    """The JSON value that begins at a place, and where it ends; None when there is none.

    A failure reads the whole text, to say in which line it is: not to be tried at many places of one text.
    """
    while at < len(text) and text[at].isspace():
        at += 1
    try:
        value, stop = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    while stop < len(text) and text[stop].isspace():
        stop += 1
    return value, stop


def _call(name: Any, arguments: Any) -> ToolCall | None:
    """A call, if these are its name and its arguments. Some models write the arguments as a string of JSON."""
    if isinstance(arguments, str):
        inner = _value_at(arguments, 0)
        arguments = inner[0] if inner is not None and inner[1] == len(arguments) else None
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    try:
        written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        (name + written).encode()
    except (ValueError, RecursionError):  # infinite, or half a character
        return None
    return ToolCall(uuid.uuid4().hex[:9], name, written)  # nine letters: some templates insist


def _calls(values: Any, key: str) -> list[ToolCall] | None:
    """The calls of a JSON object or a list of them; None unless all are."""
    listed = values if isinstance(values, list) else [values]
    found = [_call(v.get("name"), v.get(key, {})) if isinstance(v, dict) else None for v in listed]
    made = [c for c in found if c is not None]
    return made if made and len(made) == len(found) else None


def _tagged(text: str, names: Collection[str]) -> Iterator[_Piece]:
    """`<tool_call>{"name": …, "arguments": …}</tool_call>`, any number of times; the last may lack its end."""
    opening, closing = "<tool_call>", "</tool_call>"
    start = text.find(opening)
    while start >= 0:
        inside = start + len(opening)
        end = text.find(closing, inside)
        last = len(text) if end < 0 else end
        found = _value_at(text[inside:last], 0)
        whole = found is not None and inside + found[1] == last
        stop = last if end < 0 else end + len(closing)
        yield _Piece(start, stop, _calls(found[0], "arguments") if whole and found is not None else None)
        start = text.find(opening, stop)


def _listed(text: str, names: Collection[str]) -> Iterator[_Piece]:
    """`[TOOL_CALLS] [{"name": …, "arguments": …}, …]`, or `[TOOL_CALLS]name[ARGS]{…}` for each call."""
    opening, between = "[TOOL_CALLS]", "[ARGS]"
    at = 0
    for part in text.split(opening)[1:]:  # each looked at by itself: what is broken is not read again and again
        at = text.index(opening, at)
        start, at = at, at + len(opening)
        found = _value_at(part, 0)
        calls = _calls(found[0], "arguments") if found is not None and isinstance(found[0], list) else None
        if calls is None:
            name, _, arguments = part.partition(between)
            found = _value_at(arguments, 0)
            made = _call(name.strip(), found[0]) if found is not None else None
            calls = [made] if made is not None else None
            stop = at + len(part) - len(arguments)
        else:
            stop = at
        yield _Piece(start, stop + (found[1] if found is not None else 0), calls)


def _bare(text: str, names: Collection[str]) -> Iterator[_Piece]:
    """`{"name": …, "parameters": …}`, several with `;` between. With no marker, only the whole text, and only known names."""
    tag, at = "<|python_tag|>", 0
    body = text.lstrip()
    if body.startswith(tag):
        at = len(text) - len(body) + len(tag)
    calls: list[ToolCall] = []
    while found := _value_at(text, at):
        made = _calls(found[0], "parameters") or _calls(found[0], "arguments")
        if made is None or any(c.name not in names for c in made):
            return
        calls += made
        if found[1] == len(text):
            yield _Piece(0, len(text), calls)
            return
        if text[found[1]] != ";":
            return
        at = found[1] + 1


FORMATS: Sequence[ToolFormat] = (
    ToolFormat("[TOOL_CALLS]", ("[TOOL_CALLS]",), _listed),
    ToolFormat("<tool_call>", ("<tool_call>", '"arguments"'), _tagged),
    ToolFormat("<|python_tag|>", ('"parameters"', '"name"'), _bare),
)
"""Asked in this order."""

"""Tools in chats: the choice that a request makes, calls in whole answers, and text that may turn out to be a call in streams."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidRequestError
from ..outputs import CompletionOutput, ToolCall
from ..tools import FORMATS
from .protocol.base import new_id
from .protocol.chat import NamedTool

Choice = str | NamedTool | None
_MARKERS = tuple(form.marker for form in FORMATS)


class Said(NamedTuple):
    """An answer, taken apart."""

    text: str
    calls: Sequence[ToolCall]


class Tools:
    """The tools of one request.

    Args:
        tools: In OpenAI's form.
        choice: `none`, `auto`, `required`, or one tool.
        parallel: Whether several may be called at once.
        tokenizer: The model's.

    Raises:
        InvalidRequestError: The choice is none of the tools.
    """

    def __init__(self, tools: Sequence[Any] | None, choice: Choice, parallel: bool | None, tokenizer: Any) -> None:
        self.declared = list(tools) if tools and choice != "none" else None
        self._named = choice.function.name if isinstance(choice, NamedTool) else None
        self._required = choice == "required"
        self._one = parallel is False
        if (self._named or self._required) and not self.declared:
            raise InvalidRequestError("this tool_choice needs tools", param="tool_choice")
        if self._named is not None and self._schema_of(self._named) is None:
            raise InvalidRequestError(
                f"tool_choice names {self._named[:60]!r}, which is none of the tools", param="tool_choice"
            )
        hidden = [m for m in _MARKERS if m in tokenizer.all_special_tokens] if self.declared else []
        self.hidden_markers = {tokenizer.convert_tokens_to_ids(m) for m in hidden}

    @property
    def forced(self) -> bool:
        """Whether the answer is a call and nothing else."""
        return self._named is not None or self._required

    def structured(self) -> dict[str, Any] | None:
        """What a forced call is held to, as `StructuredOutputs` takes it."""
        if self._named is not None:
            return {"json": self._schema_of(self._named)}
        if not self._required:
            return None
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": name}, "parameters": schema},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
            for name, schema in self._schemas()
        ]
        listed: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
        return {"json": {**listed, "maxItems": 1} if self._one else listed}

    def read(self, c: CompletionOutput, text: str) -> Said:
        """The text and the calls of an answer that has ended; `text` is all of it, also where `c` has what is new alone."""
        if self.forced:
            calls = self._forced_calls(text)
            return Said("", calls) if calls else Said(text, ())
        return Said(c.content or "", c.tool_calls) if c.tool_calls else Said(text, ())

    def _forced_calls(self, text: str) -> list[ToolCall]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):  # cut off
            return []
        listed = [{"name": self._named, "parameters": found}] if self._named is not None else found
        return [
            ToolCall(new_id("call"), str(call["name"]), json.dumps(call["parameters"], ensure_ascii=False))
            for call in listed
        ]

    def _schemas(self) -> list[tuple[str, Mapping[str, Any]]]:
        found = []
        for tool in self.declared or ():
            function = tool.get("function", tool)
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                schema = function.get("parameters")
                found.append((function["name"], schema if isinstance(schema, Mapping) else {"type": "object"}))
        return found

    def _schema_of(self, name: str) -> Mapping[str, Any] | None:
        return dict(self._schemas()).get(name)


class HeldText:
    """Text of a stream, of which nothing is shown that may be a call.

    Args:
        tools: Of the request.

    Attributes:
        whole: All of it so far, where there are tools.
    """

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.whole = ""
        self._held, self._shown = "", ""
        self._closed = tools.forced

    def add(self, c: CompletionOutput) -> str:
        """More of it; what can be shown now."""
        if self.tools.declared is None:
            return c.text
        self.whole += c.text
        if not self.tools.hidden_markers.isdisjoint(c.token_ids):
            self._closed = True
        self._held += c.text
        if self._closed or self._begins_as_a_call():
            return ""
        safe = self._safe_length()
        shown, self._held = self._held[:safe], self._held[safe:]
        self._shown += shown
        return shown

    def rest(self, said: Said) -> str:
        """What has not been shown of an answer that has ended."""
        shown = self._shown if said.text.startswith(self._shown) else self._shown.lstrip()  # calls take blanks along
        return said.text[len(shown) :] if said.text.startswith(shown) else ""

    def _begins_as_a_call(self) -> bool:
        """Whether all there is may be a call without a marker."""
        text = (self._shown + self._held).lstrip()
        return text.startswith(("{", "["))

    def _safe_length(self) -> int:
        """Of what is held, how much no call to come can take away: not from a marker on, or from what may become one."""
        text = self._held
        found = [at for at in (text.find(marker) for marker in _MARKERS) if at >= 0]
        end = min(found, default=len(text))
        if not found:
            for marker in _MARKERS:
                for length in range(min(len(marker) - 1, len(text)), 0, -1):
                    if text.endswith(marker[:length]):
                        end = min(end, len(text) - length)
                        break
        # A call takes the blanks around it along.
        return len(text[:end].rstrip())

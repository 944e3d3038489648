"""`/v1/responses`: the request, and the conversation that it stands for. Nothing is stored, so nothing can be gone back to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ...errors import InvalidRequestError
from ...sampling import SamplingParams
from .base import Data, Listed, Part, without_none
from .chat import Message, NamedFunction, NamedTool
from .sampling import JsonSchema, ResponseFormat, SamplingFields

MAX_ITEMS = 4096


class InputText(Part):
    """Text, the user's or a former answer's."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class InputImage(Part):
    """A picture."""

    type: Literal["input_image"]
    image_url: Data
    detail: str | None = None


class InputAudioData(Part):
    """A clip in base64."""

    data: Data
    format: str | None = None


class InputAudio(Part):
    """A clip."""

    type: Literal["input_audio"]
    input_audio: InputAudioData


class Refusal(Part):
    """A former answer that was none."""

    type: Literal["refusal"]
    refusal: str


InputPart = Annotated[InputText | InputImage | InputAudio | Refusal, Field(discriminator="type")]


class Item(Part):
    """One item of the input: a message, a call of a tool, or what came of one."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")

    type: str = Field("message", max_length=64)
    role: str | None = Field(None, max_length=64)
    content: str | Listed[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | Listed[InputPart] | None = None


class TextFormat(JsonSchema):
    """The form of the text."""

    type: Literal["text", "json_object", "json_schema"]


class TextOptions(Part):
    """What the text is like."""

    format: TextFormat | None = None
    verbosity: str | None = None


class NamedResponseTool(Part):
    """A tool by its name."""

    type: Literal["function"]
    name: str


class ResponsesRequest(SamplingFields):
    """See OpenAI's reference.

    Attributes:
        input: A question, or a conversation in items.
        instructions: What stands before it.
        max_output_tokens: Most tokens to generate.
        text: `{"format": …}` holds the answer to a JSON schema.
        tools, tool_choice: Functions that the model may ask for, and whether it must.
        chat_template_kwargs, chat_template, add_generation_prompt, continue_final_message: As in a chat.
        store: Only `false` is what happens.
    """

    input: str | Annotated[Listed[Item], Field(min_length=1, max_length=MAX_ITEMS)]
    instructions: str | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    text: TextOptions | None = None
    tools: Listed[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedResponseTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    chat_template: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    background: bool | None = None
    # Known, and of no consequence here.
    store: bool | None = None
    include: Listed[str] | None = None
    truncation: str | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    stream_options: dict[str, Any] | None = None

    def check(self) -> None:
        """Refuse what would need a store.

        Raises:
            InvalidRequestError: It is named.
        """
        for name in ("previous_response_id", "conversation", "background"):
            if getattr(self, name):
                raise InvalidRequestError(
                    f"{name}: this server stores nothing; send the whole conversation",
                    code="unsupported_parameter",
                    param=name,
                )
        for i, tool in enumerate(self.tools or ()):
            if tool.get("type") != "function" or not isinstance(tool.get("name"), str):
                raise InvalidRequestError(
                    "a tool here is a function: {'type': 'function', 'name': …}",
                    code="unsupported_parameter",
                    param=f"tools.{i}",
                )

    def messages(self) -> list[Message]:
        """The conversation as chats have it."""
        found = [Message(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*found, Message(role="user", content=self.input)]
        for i, item in enumerate(self.input):
            if item.type == "reasoning":
                continue
            found.append(_message(item, f"input.{i}"))
        return found

    def chat_tools(self) -> list[dict[str, Any]] | None:
        """The tools as chats have them."""
        if self.tools is None:
            return None
        known = ("name", "description", "parameters", "strict")
        return [{"type": "function", "function": {k: t[k] for k in known if t.get(k) is not None}} for t in self.tools]

    def chat_tool_choice(self) -> str | NamedTool | None:
        """The choice as chats have it."""
        if isinstance(self.tool_choice, NamedResponseTool):
            return NamedTool(type="function", function=NamedFunction(name=self.tool_choice.name))
        return self.tool_choice

    def sampling_params(self, defaults: SamplingParams, **more: Any) -> SamplingParams:
        """See `SamplingFields`; `forced` in `more` comes before what holds the text."""
        own = without_none({
            "logprobs": self.top_logprobs,
            "structured_outputs": more.pop("forced", None) or self._structured(),
        })  # fmt: skip
        return super().sampling_params(defaults, max_tokens=self.max_output_tokens, **own, **more)

    def _structured(self) -> dict[str, Any] | None:
        """What the text is held to."""
        form = self.text.format if self.text is not None else None
        if form is None:
            return self.structured_outputs
        schema = JsonSchema(name=form.name, schema=form.schema_)
        wanted = ResponseFormat(type=form.type, json_schema=schema).structured()
        if wanted is not None and self.structured_outputs is not None:
            raise InvalidRequestError("text.format and structured_outputs contradict each other", param="text.format")
        return wanted or self.structured_outputs


def _message(item: Item, where: str) -> Message:
    if item.type == "function_call":
        call = {"id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}
        return Message(role="assistant", content=None, tool_calls=[call])
    if item.type == "function_call_output":
        return Message(role="tool", content=_content(item.output, where), tool_call_id=item.call_id)
    if item.type != "message" or item.role is None or item.content is None:
        raise InvalidRequestError(
            "an item is a message with role and content, a function_call or a function_call_output",
            code="unsupported_parameter" if item.type != "message" else None,
            param=where,
        )
    return Message(role="system" if item.role == "developer" else item.role, content=_content(item.content, where))


def _content(content: str | list[InputPart] | None, where: str) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[dict[str, Any]] = []
    for part in content:
        if isinstance(part, InputText):
            parts.append({"type": "text", "text": part.text})
        elif isinstance(part, InputImage):
            parts.append({"type": "image_url", "image_url": part.image_url})
        elif isinstance(part, InputAudio):
            parts.append({"type": "input_audio", "input_audio": {"data": part.input_audio.data}})
        else:
            parts.append({"type": "text", "text": part.refusal})
    return parts

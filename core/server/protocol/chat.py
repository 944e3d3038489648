"""`/v1/chat/completions`: the request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from .base import Data, Listed, Part
from .sampling import CompletionFields

MAX_MESSAGES, MAX_PARTS = 4096, 4096


class TextPart(Part):
    """Text."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str | None = None
    refusal: str | None = None


class ImageUrl(Part):
    """Where a picture is."""

    url: Data
    detail: str | None = None


class ImagePart(Part):
    """A picture: a `data:` URI, or a URL of a host that the server fetches from."""

    type: Literal["image_url"]
    image_url: ImageUrl | Data


class AudioData(Part):
    """A clip in base64; its bytes tell its format."""

    data: Data
    format: str | None = None


class AudioPart(Part):
    """A clip."""

    type: Literal["input_audio"]
    input_audio: AudioData


class MediaUrl(Part):
    """Where a clip is."""

    url: Data


class AudioUrlPart(Part):
    """A clip: a `data:` URI, or a URL of a host that the server fetches from."""

    type: Literal["audio_url"]
    audio_url: MediaUrl | Data


class ImageEmbedsPart(Part):
    """Embeddings in the place of a picture: an .npy or .safetensors file of `(rows, hidden)` in base64."""

    type: Literal["image_embeds"]
    image_embeds: Data


ContentPart = Annotated[TextPart | ImagePart | AudioPart | AudioUrlPart | ImageEmbedsPart, Field(discriminator="type")]


class Message(Part):
    """One message; what a template knows of it besides is handed on."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")

    role: str = Field(max_length=64)
    content: str | Annotated[Listed[ContentPart], Field(max_length=MAX_PARTS)] | None = None
    name: str | None = None
    tool_calls: Listed[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class NamedFunction(Part):
    """A function by its name."""

    name: str


class NamedTool(Part):
    """A tool by its name."""

    type: Literal["function"]
    function: NamedFunction


class ChatRequest(CompletionFields):
    """See OpenAI's reference.

    Attributes:
        max_completion_tokens: Most tokens to generate; `max_tokens` is its older name.
        logprobs: Tell how likely the tokens were, and with `top_logprobs` which were likelier.
        tools, tool_choice: Functions that the model may ask for, and whether it must.
        chat_template_kwargs: Passed to the model's chat template.
        chat_template: In the place of the model's, where the operator allows it.
    """

    messages: Annotated[Listed[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    tools: Listed[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    chat_template: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    # Known, and of no consequence here: one's own server keeps nothing and has one quality of service.
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    modalities: Listed[str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None

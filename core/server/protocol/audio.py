"""`/v1/audio/transcriptions` and `/translations`: the request, which is a form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ...errors import InvalidRequestError
from .base import RequestBody

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
_UNSUPPORTED = ("known_speaker_names", "known_speaker_references")


class SpeechForm(RequestBody):
    """What both have; see OpenAI's reference.

    Attributes:
        language: That is spoken; left out, detected where the model can.
        prompt: Text that comes before, such as names to expect.
        keywords: Words to expect.
        temperature: 0: the likeliest text, and higher ones where the model doubts it.
    """

    model_config = ConfigDict(strict=False, allow_inf_nan=False, extra="allow", protected_namespaces=())

    language: str | None = Field(None, max_length=40)
    prompt: str | None = None
    keywords: list[str] | None = Field(None, max_length=100)
    response_format: Format = "json"
    temperature: float = Field(0.0, ge=0, le=1)
    to_language: str | None = Field(None, max_length=40)
    timeout: float | None = Field(None, gt=0)
    priority: int = Field(0, ge=-(2**63), lt=2**63)

    def words_before(self) -> str | None:
        """The prompt, with the keywords before it."""
        parts = [", ".join(self.keywords or []), self.prompt or ""]
        return " ".join(part for part in parts if part) or None


class TranscriptionForm(SpeechForm):
    """See OpenAI's reference.

    Attributes:
        languages: As `language`, of which there is one.
        timestamp_granularities: Of `verbose_json`: `segment`, `word` or both.
        stream: Send the text as it comes.
    """

    languages: list[str] | None = None
    timestamp_granularities: list[Literal["segment", "word"]] | None = Field(None, max_length=2)
    stream: bool = False
    include: list[str] | None = None
    chunking_strategy: str | None = None

    def check(self) -> None:
        """Refuse what cannot be done, in the place of passing over it.

        Raises:
            InvalidRequestError: It is named.
        """
        for name in _UNSUPPORTED:
            if name in (self.model_extra or {}):
                raise _unsupported(name, "no model here tells speakers apart")
        if self.include:
            raise _unsupported("include", "transcriptions come without log-probabilities")
        if self.chunking_strategy not in (None, "auto"):
            raise _unsupported("chunking_strategy", "how a clip is cut is the model's business: auto")
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise _unsupported("timestamp_granularities", "they are for response_format=verbose_json")
        if self.stream and self.response_format not in ("json", "text"):
            raise _unsupported("response_format", "a stream is of json or text")
        if self.languages and len(self.languages) > 1:
            raise _unsupported("languages", "one language can be given, or none")

    def spoken(self) -> str | None:
        """The language."""
        return self.language or (self.languages[0] if self.languages else None)


def _unsupported(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name}: {why}", code="unsupported_parameter", param=name)


def form_schema(form: type[SpeechForm]) -> dict[str, Any]:
    """A form as OpenAPI describes it."""
    schema = form.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["properties"]["file"] = {"type": "string", "format": "binary"}
    schema["required"] = ["file", *schema.get("required", [])]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}

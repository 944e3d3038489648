"""How a request asks for its tokens to be chosen: OpenAI's parameters, and those that vLLM's users know besides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from ...errors import InvalidRequestError
from ...outputs import RequestOutputKind
from ...sampling import SamplingParams
from .base import INT64, Listed, Part, RequestBody, without_none

_PASSED = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias",
    "seed", "stop", "stop_token_ids", "min_tokens", "ignore_eos", "bad_words", "allowed_token_ids",
    "include_stop_str_in_output", "skip_special_tokens", "structured_outputs",
)  # fmt: skip
"""What is handed on under its own name; the limits are `SamplingParams`'."""


class StreamOptions(Part):
    """What a stream tells besides.

    Attributes:
        include_usage: A last event with the number of tokens.
    """

    include_usage: bool | None = None


class JsonSchema(Part):
    """A schema and its name."""

    name: str = Field("", max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Part):
    """The form of the text."""

    type: str
    json_schema: JsonSchema | None = None

    def structured(self) -> dict[str, Any] | None:
        """As `StructuredOutputs` takes it; None for plain text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"json": {"type": "object"}}
        if self.type != "json_schema":
            raise InvalidRequestError(
                f"response_format.type is text, json_object or json_schema, not {self.type[:40]!r}",
                param="response_format.type",
            )
        if self.json_schema is None or self.json_schema.schema_ is None:
            raise InvalidRequestError("give the schema", param="response_format.json_schema.schema")
        return {"json": self.json_schema.schema_}


class SamplingFields(RequestBody):
    """What every request that generates has: see `SamplingParams`. What is left out is as the model's own generation config says.

    Attributes:
        stream: Send the text as it comes.
        structured_outputs: `{"json" | "regex" | "choice" | "grammar": …}`.
        timeout: Seconds until the request ends with an error; no longer than the server allows.
        priority: The lower, the earlier its turn.
        cache_salt: Only requests of one salt share what was computed for them.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | Listed[str] | None = None
    stop_token_ids: Listed[int] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    bad_words: Listed[str] | None = None
    allowed_token_ids: Listed[int] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    structured_outputs: dict[str, Any] | None = None
    stream: bool | None = None
    timeout: float | None = Field(None, gt=0)
    priority: int = Field(0, ge=-INT64, lt=INT64)
    cache_salt: str | None = None

    def sampling_params(self, defaults: SamplingParams, **more: Any) -> SamplingParams:
        """All together.

        Args:
            defaults: The model's own.
            more: What only one kind of request has.

        Raises:
            InvalidRequestError: A parameter is out of range, or contradicts another.
        """
        kind = RequestOutputKind.DELTA if self.stream else RequestOutputKind.FINAL_ONLY
        given = without_none({name: getattr(self, name) for name in _PASSED})
        return replace(defaults, **{"max_tokens": None, "output_kind": kind, **given, **more})


class CompletionFields(SamplingFields):
    """What chats and completions have besides.

    Attributes:
        n: Texts for a prompt.
        response_format: The form of each.
        stream_options: What a stream tells besides.
    """

    n: int | None = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = None

    def sampling_params(self, defaults: SamplingParams, **more: Any) -> SamplingParams:
        """See `SamplingFields`; `forced` in `more` comes before `structured_outputs`."""
        structured = more.pop("forced", None) or self.structured_outputs
        if self.response_format is not None:
            wanted = self.response_format.structured()
            if wanted is not None and structured is not None:
                raise InvalidRequestError(
                    "response_format and structured_outputs contradict each other", param="response_format"
                )
            structured = wanted or structured
        if self.stream_options is not None and not self.stream:
            raise InvalidRequestError("stream_options are for stream=true", param="stream_options")
        own = without_none({"n": self.n, "structured_outputs": structured})
        return super().sampling_params(defaults, **own, **more)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

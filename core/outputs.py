"""What a request gives back, under the names that vLLM's users know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RequestOutputKind(Enum):
    """What a request that is streamed gives out: all it has so far, what is new since the last time, or its end alone."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass(frozen=True)
class Logprob:
    """Log-probability of one token at one step.

    Attributes:
        logprob: Natural logarithm of the probability, before temperature.
        rank: 1 for the likeliest token.
        decoded_token: The token as text.
    """

    logprob: float
    rank: int
    decoded_token: str = ""


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that a model asks for.

    Attributes:
        id: To answer it by.
        name: The tool.
        arguments: A JSON object, as text.
    """

    id: str
    name: str
    arguments: str


@dataclass
class RequestMetrics:
    """Times of one request, in seconds of a monotonic clock.

    Attributes:
        arrival_time: When it was added.
        first_scheduled_time: When it first took part in a step.
        first_token_time: When its first token was known.
        finished_time: When it ended.
        preemptions: How often it lost its pages and was computed anew.
    """

    arrival_time: float = 0.0
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    finished_time: float | None = None
    preemptions: int = 0


@dataclass
class CompletionOutput:
    """One completion of a prompt.

    Attributes:
        index: Which of the `n`.
        text: The text so far, or the new text alone: see `RequestOutputKind`.
        token_ids: As `text`, in tokens.
        logprobs: For each token, token id → Logprob, when asked for. Those that were given out as what is new are not kept: in
            the `partial_results` of an error after them, this is None.
        cumulative_logprob: Sum over the chosen tokens, when asked for.
        finish_reason: `stop` (an end token or stop string), `length`, `abort`, `error`; None while it goes on.
        stop_reason: The stop string or token id; None for the model's own end token.
        tool_calls: Calls that the text asks for, once it has ended; only where the request brought tools.
        content: The text without these calls; None where the request brought no tools.
        cross_attention: `(heads, prompt tokens, states)`, how the prompt attends over the encoder's states in the prompt's
            `cross_attention_heads`.
    """

    index: int
    text: str
    token_ids: Sequence[int]
    logprobs: list[dict[int, Logprob]] | None = None
    cumulative_logprob: float | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    tool_calls: Sequence[ToolCall] = ()
    content: str | None = None
    cross_attention: NDArray[np.float32] | None = field(default=None, repr=False)


@dataclass
class RequestOutput:
    """A prompt and its completions.

    Attributes:
        request_id: Unique within the engine.
        prompt: The text, when the caller gave text.
        prompt_token_ids: Final ids: media placeholders are expanded.
        outputs: The completions.
        finished: Whether all of them have ended.
        num_cached_tokens: Prompt tokens that were not computed because their pages were at hand.
        metrics: Times.
        prompt_logprobs: For each token of the prompt, token id → Logprob, when asked for; None for the first.
        pooled: What a model that pools made of the prompt, before it is given the form that `LLM.embed` and others return.
        error: What ended the request, with `on_error="return"`.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = False
    num_cached_tokens: int = 0
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    pooled: NDArray[np.float32] | None = field(default=None, repr=False)
    error: EngineError | None = None

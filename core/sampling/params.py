"""`SamplingParams`: how the tokens of one request are chosen."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequestError
from ..outputs import RequestOutputKind
from .checks import INT64, bad, bias, flag, listed, number, strings, token_ids, whole
from .structured import StructuredOutputs

if TYPE_CHECKING:
    from torch import Tensor

LogitsProcessor = Callable[[list[int], "Tensor"], "Tensor"]
"""(token ids generated so far, float32 logits `(vocab,)`) → logits of the same shape."""

MAX_N = 16
MAX_STOPS, MAX_STOP_CHARS = 4, 256
MAX_STOP_TOKEN_IDS = 128
MAX_LOGPROBS = 20
MAX_BAD_WORDS, MAX_BAD_WORD_CHARS = 128, 256
MAX_BIASED, MAX_BIAS = 1024, 100.0
MAX_ALLOWED = 16384
MAX_PROCESSORS = 16
_WHOLE = (
    ("n", 1, MAX_N),
    ("max_tokens", 1, INT64),
    ("min_tokens", 0, INT64),
    ("top_k", -1, INT64),
    ("seed", -INT64, INT64 - 1),
    ("logprobs", 0, MAX_LOGPROBS),
    ("prompt_logprobs", 0, MAX_LOGPROBS),
)
"""Fields that are whole numbers, and between which."""
_MAY_BE_NONE = ("max_tokens", "seed", "logprobs", "prompt_logprobs")
_NUMBERS = (
    ("temperature", 0.0, 1e9),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repetition_penalty", 0.01, 100.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
)
_FLAGS = ("ignore_eos", "detokenize", "include_stop_str_in_output", "skip_special_tokens")


@dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one request are chosen.

    The order in which these act: logit_bias, penalties, logits_processors, then what forbids tokens (allowed_token_ids,
    bad_words, min_tokens, structured_outputs: nothing can undo it), temperature, top_k, top_p, min_p.

    Attributes:
        n: Completions to draw for the prompt.
        max_tokens: Most tokens to generate; None: what the context has left.
        min_tokens: No end token, stop token or stop string ends the text before so many.
        temperature: Divides the logits; 0 means greedy.
        top_p: Draw from the smallest set of tokens whose probability reaches this.
        top_k: Draw from this many likeliest tokens; 0 or -1: all.
        min_p: Leave out tokens less likely than this share of the likeliest.
        repetition_penalty: Divides positive logits of tokens in the prompt or the output, and multiplies negative ones.
        presence_penalty: Taken from the logits of tokens in the output.
        frequency_penalty: As presence_penalty, for each time that the token is there.
        logit_bias: Token id → what is added to its logit.
        logits_processors: Called in turn with the output so far and the row of logits. One that raises ends its own
            request and no other.
        allowed_token_ids: Only these are ever chosen.
        bad_words: Strings whose token sequences are not generated, at the start of a word or within one.
        structured_outputs: Hold the text to a JSON schema, a regular expression, some choices or a grammar.
        seed: Repeats the draw, whatever shares the batch.
        stop: End before any of these strings.
        stop_token_ids: End at any of these tokens, besides the model's own end tokens.
        ignore_eos: Go on past the model's end tokens.
        logprobs: Log-probabilities of this many likeliest tokens, and of the chosen one, at each step: the model's own,
            before anything above has changed them.
        prompt_logprobs: The same for the tokens of the prompt.
        detokenize: Make text of the tokens; without, `text` stays empty.
        include_stop_str_in_output: Keep the stop string in the text.
        skip_special_tokens: Leave special tokens out of the text.
        output_kind: What a stream gives; None: `LLM` what is new, `AsyncLLM` all so far.
    """

    n: int = 1
    max_tokens: int | None = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    logits_processors: Sequence[LogitsProcessor] = ()
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] = ()
    structured_outputs: StructuredOutputs | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    output_kind: RequestOutputKind | None = None
    greedy: bool = field(init=False, repr=False, compare=False)
    """Whether the likeliest token is always taken."""
    shapes_logits: bool = field(init=False, repr=False, compare=False)
    """Whether anything but temperature, top_k, top_p and min_p acts on the logits."""
    plain: bool = field(init=False, repr=False, compare=False)
    """Greedy and nothing else: the sampler needs to look at nothing of it."""

    def __post_init__(self) -> None:
        for name, low, high in _WHOLE:
            value = getattr(self, name)
            if value is not None or name not in _MAY_BE_NONE:
                self._set(name, whole(name, value, low, high))
        for name, least, most in _NUMBERS:
            self._set(name, number(name, getattr(self, name), least, most))
        for name in _FLAGS:
            flag(name, getattr(self, name))
        if self.output_kind is not None and not isinstance(self.output_kind, RequestOutputKind):
            raise bad("output_kind", "is a RequestOutputKind", self.output_kind)
        if self.top_p == 0.0:
            raise bad("top_p", "must be above 0 (for greedy decoding use temperature=0)", self.top_p)
        self._set("stop", strings("stop", self.stop, MAX_STOPS, MAX_STOP_CHARS))
        self._set("stop_token_ids", token_ids("stop_token_ids", self.stop_token_ids, MAX_STOP_TOKEN_IDS))
        self._set("bad_words", strings("bad_words", self.bad_words, MAX_BAD_WORDS, MAX_BAD_WORD_CHARS))
        self._set("logit_bias", bias("logit_bias", self.logit_bias, MAX_BIASED, MAX_BIAS) or None)
        if self.allowed_token_ids is not None:
            self._set("allowed_token_ids", token_ids("allowed_token_ids", self.allowed_token_ids, MAX_ALLOWED))
        processors = listed("logits_processors", self.logits_processors, MAX_PROCESSORS, "functions")
        for processor in processors:
            if not callable(processor):
                raise bad("logits_processors", "takes functions of (output token ids, logits)", processor)
        self._set("logits_processors", processors)
        if self.structured_outputs is not None and not isinstance(self.structured_outputs, StructuredOutputs):
            self._set("structured_outputs", StructuredOutputs.from_mapping(self.structured_outputs))
        self._check_together()
        self._set("greedy", self.temperature == 0.0 or self.top_k == 1)
        self._set("shapes_logits", self._shapes_logits())
        self._set("plain", self.greedy and not self.shapes_logits and self.logprobs is None)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_together(self) -> None:
        """What contradicts each other."""
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise bad("min_tokens", f"must be at most max_tokens={self.max_tokens}", self.min_tokens)
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise bad("allowed_token_ids", "must name a token", self.allowed_token_ids)
        if self.stop and not self.detokenize:
            raise bad("detokenize", "must be True where stop strings are looked for", self.detokenize)
        if self.structured_outputs is not None and self.ignore_eos:
            raise bad("ignore_eos", "must be False with structured_outputs, whose text ends by itself", self.ignore_eos)

    def _shapes_logits(self) -> bool:
        forbids = self.allowed_token_ids or self.bad_words or self.min_tokens or self.structured_outputs
        penalised = self.repetition_penalty != 1.0 or self.presence_penalty or self.frequency_penalty
        return bool(forbids or penalised or self.logit_bias or self.logits_processors)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SamplingParams:
        """Make one from keyword arguments; an unknown name is an error that says the nearest known one."""
        known = [f.name for f in fields(cls) if f.init]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                raise InvalidRequestError(f"unknown sampling parameter {name!r}{hint}", param=name)
        return cls(**values)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return self.stop  # type: ignore[return-value]

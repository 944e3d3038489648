"""Jobs: a prompt and its `n` sequences, from the processed input to outputs. What `LLM` and `AsyncLLM` share."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .detokenizer import Detokenizer, NoText
from .errors import ContextLengthError, EngineError, InvalidRequestError, shown
from .inputs import ProcessedInput
from .likelihood import Likelihood
from .logits.rules import LogitsState
from .outputs import CompletionOutput, RequestOutput, RequestOutputKind
from .pooling.params import NO_TOKENS
from .request import Request
from .sampling import SamplingParams
from .tools import ToolParser

if TYPE_CHECKING:
    from .served import ServedEngine

_MASK = 2**64 - 1
_INT64 = 2**63


def check_priority(priority: Any) -> None:
    """Refuse what is no priority: it would be compared with those of other requests, in the engine's own step."""
    if type(priority) is not int or not -_INT64 <= priority < _INT64:
        raise InvalidRequestError(
            f"priority must be a whole number of at most 64 bits, not {shown(priority)}", param="priority"
        )


class End(NamedTuple):
    """Why a sequence ended, as its completion says it."""

    finish_reason: str | None
    stop_reason: str | int | None


@dataclass(eq=False)
class Job:
    """One prompt and its `n` sequences.

    The engine makes tokens; their text is made here, when somebody wants it, by whoever reads the job.

    Attributes:
        output: What is known of the prompt; the completions stand in it once all have ended.
        requests: The sequences.
        texts: Their texts.
        ends: For each sequence, why it ended; None until its last text has been made.
        tools: Reads the calls of tools in their texts.
    """

    output: RequestOutput
    params: SamplingParams
    requests: list[Request] = field(default_factory=list)
    texts: list[Detokenizer] = field(default_factory=list)
    ends: list[End | None] = field(default_factory=list)
    tools: ToolParser | None = None
    _handed_out: list[int] = field(default_factory=list)
    """For each sequence, how many of its tokens `take` has given out; -1 once its end has been."""

    def __post_init__(self) -> None:
        self._likelihoods = [Likelihood(request) for request in self.requests]

    @property
    def ended(self) -> bool:
        """Whether the last text of every sequence has been made."""
        return None not in self.ends

    def advance(self, index: int, num_tokens: int, *, finished: bool) -> str | None:
        """Bring a sequence's text up to date.

        Args:
            index: Which of the sequences.
            num_tokens: How many tokens it has, prompt included.
            finished: Whether these are all.

        Returns:
            The stop string that its text has come to, where that ends it: the engine does not know yet.
        """
        request, text = self.requests[index], self.texts[index]
        if self.ends[index] is not None:
            return None
        asked = self.params.prompt_logprobs is not None and self.output.prompt_logprobs is None
        if asked and index == 0 and num_tokens > request.prompt_len:
            self.output.prompt_logprobs = [None, *request.prompt_logprobs]
        new = request.token_ids[request.prompt_len + len(text.ids) : num_tokens] if text.stopped_by is None else []
        hit = text.append_one_by_one(new) if self.params.stops else text.append(new)
        if hit is None and finished:
            hit = text.finish()
        if hit is not None and request.finish_reason not in ("abort", "error"):
            self.ends[index] = End("stop", hit)
        elif finished:
            self.ends[index] = End(request.finish_reason, request.stop_reason)
        if self.ended:
            self._complete()
        return hit if self.ends[index] == End("stop", hit) else None

    def fail(self, error: EngineError) -> None:
        """End a job that never began."""
        self.requests, self.texts, self.ends = [], [], []
        self.output.error, self.output.finished = error, True

    def abandon(self) -> None:
        """End a job that was aborted before it began."""
        self.ends = [End("abort", None)] * len(self.requests)
        self._complete()

    def _complete(self) -> None:
        self.output.outputs = [self.completion(i) for i in range(len(self.requests))]
        self.output.error = next((r.error for r in self.requests if r.error is not None), None)
        self.output.num_cached_tokens = self.requests[0].num_cached
        self.output.pooled = self.requests[0].pooled
        self.output.finished = True

    def completion(self, index: int) -> CompletionOutput:
        """A sequence's completion as far as it has come; of its text, what nothing to come can change."""
        settled = self.texts[index].settled(finished=self.ends[index] is not None)
        return self._completion(index, settled, 0)

    def _completion(self, index: int, text: str, first: int) -> CompletionOutput:
        """This text, and the sequence's tokens from the `first` on."""
        request, end, ids = self.requests[index], self.ends[index], self.texts[index].ids
        read = (
            self.tools.parse_output(self.texts[index].text, ids) if self.tools is not None and end is not None else None
        )
        likelihood = self._likelihoods[index] if self.params.logprobs is not None else None
        return CompletionOutput(
            index=index,
            text=text,
            token_ids=ids[first:],
            logprobs=likelihood.between(first, len(ids)) if likelihood is not None else None,
            cumulative_logprob=likelihood.sum(ids) if likelihood is not None else None,
            finish_reason=end.finish_reason if end is not None else None,
            stop_reason=end.stop_reason if end is not None else None,
            tool_calls=read.calls if read is not None else (),
            content=read.content if read is not None else None,
            cross_attention=seen.numpy() if (seen := request.cross_attention) is not None and end is not None else None,
        )

    def whole(self) -> RequestOutput:
        """All completions as far as they have come."""
        if self.output.finished:
            return self.output
        return replace(self.output, outputs=[self.completion(i) for i in range(len(self.requests))])

    def take(self, kind: RequestOutputKind) -> RequestOutput | None:
        """What there is that no call before has given out, in the form that `kind` says; None without anything new."""
        if kind is RequestOutputKind.FINAL_ONLY:
            return self.output if self.output.finished else None
        fresh = []
        for i, text in enumerate(self.texts):
            first, ended = self._handed_out[i], self.ends[i] is not None
            if first < 0 or (len(text.ids) == first and not ended):
                continue
            fresh.append((i, first))
            self._handed_out[i] = -1 if ended else len(text.ids)
        if not fresh and self.output.error is None:
            return None
        if kind is RequestOutputKind.CUMULATIVE:
            return self.whole()
        deltas = [self._completion(i, self.texts[i].delta(finished=self.ends[i] is not None), n) for i, n in fresh]
        if self.params.logprobs is not None:
            self._drop_logprobs([i for i, _ in fresh])
        return replace(self.output, outputs=deltas)

    def _drop_logprobs(self, fresh: Sequence[int]) -> None:
        """Log-probabilities that were given out as what is new are their reader's alone."""
        for i in fresh:
            self._likelihoods[i].drop(len(self.texts[i].ids))
        for completion in self.output.outputs:
            completion.logprobs = None


class JobMaker:
    """Makes the jobs of one engine, and gives them their numbers.

    Args:
        engine: Whose limits, end tokens and seed they take.
    """

    def __init__(self, engine: ServedEngine) -> None:
        self.engine = engine
        self._counter = itertools.count()

    @cached_property
    def defaults(self) -> SamplingParams:
        """What the model's generation_config.json asks for: greedy unless it says `do_sample`."""
        found = self.engine.checkpoint.generation_defaults()
        if not found.get("do_sample"):
            return SamplingParams(temperature=0.0, max_tokens=found.get("max_new_tokens"))
        names = ("temperature", "top_p", "top_k")
        given = {k: found[k] for k in names if found.get(k) is not None}
        return SamplingParams(max_tokens=found.get("max_new_tokens"), **given)

    def next_id(self) -> str:
        """A request id that nobody else has: the job's number, and letters that nobody can guess."""
        return f"{next(self._counter)}-{uuid.uuid4().hex[:8]}"

    def make(self, job_id: str, made: ProcessedInput, params: SamplingParams, priority: int = 0) -> Job:
        """A job for a processed prompt.

        Args:
            job_id: From `next_id`; sequences are named and seeded by it.
            made: The prompt.
            params: How its tokens are chosen.
            priority: The lower, the earlier its turn.

        Raises:
            ContextLengthError: Prompt and output do not fit.
            InvalidRequestError: The parameters do not go with the model; a grammar is compiled here, which may take seconds.
        """
        check_priority(priority)
        if made.pooling is not None:
            return self._pooled(job_id, made, priority)
        ids = made.prompt.prompt_token_ids
        left = self.engine.plan.max_model_len - len(ids)
        if params is self.defaults:  # the model's own limit gives way to the context, a caller's does not
            params = replace(params, max_tokens=min(params.max_tokens or left, left))
        if params.max_tokens is not None and params.max_tokens > left:
            raise ContextLengthError(
                f"the prompt has {len(ids)} tokens and max_tokens={params.max_tokens}, together {len(ids) + params.max_tokens}, "
                f"but this engine's sequences hold {self.engine.plan.max_model_len}; "
                f"at most max_tokens={left} fits, and None takes what is left",
                param="sampling_params.max_tokens",
            )
        rules = self.engine.rules.make(params)
        requests = [
            Request(
                request_id=f"{job_id}-{i}",
                token_ids=list(ids),
                prompt_len=len(ids),
                # Their prompt is one and the same: the first finds its log-probabilities for all.
                params=params if i == 0 or params.prompt_logprobs is None else replace(params, prompt_logprobs=None),
                max_tokens=params.max_tokens or left,
                eos_token_ids=self.engine.eos_token_ids,
                seed=self._seed(params, job_id, i),
                items=made.prompt.items,
                encoder_item=made.prompt.encoder_item,
                priority=priority,
                cache_salt=made.cache_salt.encode(),
                cross_attention_heads=made.cross_attention_heads if i == 0 else (),
                reads_cache=(params.prompt_logprobs is None and not made.cross_attention_heads) or i > 0,
                logits=LogitsState(rules, ids) if rules is not None else None,
            )
            for i in range(params.n)
        ]
        output = RequestOutput(job_id, made.text, list(ids), [], metrics=requests[0].metrics)
        texts = [self._text(params) for _ in requests]
        return Job(output, params, requests, texts, [None] * params.n, made.tools, [0] * params.n)

    def _pooled(self, job_id: str, made: ProcessedInput, priority: int) -> Job:
        """A job whose prompt is pooled: one sequence, and no tokens after it."""
        ids = made.prompt.prompt_token_ids
        request = Request(
            request_id=f"{job_id}-0",
            token_ids=list(ids),
            prompt_len=len(ids),
            params=NO_TOKENS,
            max_tokens=0,
            eos_token_ids=frozenset(),
            seed=0,
            items=made.prompt.items,
            priority=priority,
            reads_cache=False,
            pooling=made.pooling,
            token_types=made.token_types,
        )
        output = RequestOutput(job_id, made.text, list(ids), [], metrics=request.metrics)
        return Job(output, NO_TOKENS, [request], [self._text(NO_TOKENS)], [None], None, [0])

    def _text(self, params: SamplingParams) -> Detokenizer:
        return (Detokenizer if params.detokenize else NoText)(
            self.engine.inputs.tokenizer,
            params.stops,
            keep_stop=params.include_stop_str_in_output,
            skip_special_tokens=params.skip_special_tokens,
            min_tokens=params.min_tokens,
        )

    def _seed(self, params: SamplingParams, job_id: str, index: int) -> int:
        """64 bits for a sequence's draws: from its own seed, or from the engine's and its number."""
        if params.seed is not None:
            # Not the sampler's own increment: one sequence's draws would be the next one's, shifted by a token.
            return (params.seed + index * 0xD1342543DE82EF95) & _MASK
        number = int(job_id.partition("-")[0])
        return (
            self.engine.config.seed * 0xD1342543DE82EF95 + (number * 1000003 + index + 1) * 0x2545F4914F6CDD1D
        ) & _MASK


def of_requests(jobs: Sequence[Job]) -> dict[str, tuple[Job, int]]:
    """Id of each sequence → its job, and which of the job's it is."""
    return {r.request_id: (job, i) for job in jobs for i, r in enumerate(job.requests)}

"""`LLM`: the engine inside a Python program. Prompts in, completions out, in order."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from types import TracebackType
from typing import Any, Literal

from .detokenizer import Detokenizer
from .engine import Engine, EnginePlan
from .errors import ContextLengthError, EngineDeadError, EngineError, InvalidRequestError
from .inputs import ProcessedInput
from .outputs import CompletionOutput, RequestOutput
from .progress import ProgressMeter
from .request import Request
from .sampling import SamplingParams

Prompt = str | Sequence[int] | Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]
OnError = Literal["raise", "return"]
_MASK = 2**64 - 1


@dataclass
class _Job:
    """One prompt and its `n` sequences."""

    output: RequestOutput
    params: SamplingParams
    requests: list[Request]
    texts: list[Detokenizer]
    watched: bool
    """Whether text is made as it comes: for streaming and for stop strings."""
    ended: list[bool] = field(default_factory=list)
    """For each sequence, whether its last text has been made. Another thread's step may end a sequence before that."""

    @property
    def finished(self) -> bool:
        return all(self.ended)


class LLM:
    """A model, loaded into this process.

    Args:
        model: Folder in HF layout, hub id, or a shipped demo such as `demo/llava`.
        options: See `core.EngineConfig`; an unknown one is an error.

    Raises:
        StartupError: The model cannot be loaded as asked; nothing stays behind.

    Example:
        >>> with LLM("demo/llava") as llm:  # doctest: +SKIP
        ...     llm.generate("USER: hello ASSISTANT:", SamplingParams(max_tokens=8))[0].outputs[0].text
    """

    def __init__(self, model: str, **options: Any) -> None:
        self.engine = Engine(str(model), options)
        self._counter = itertools.count()
        self._jobs: dict[str, _Job] = {}

    # ---- what users call --------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: bool = False,
        on_error: OnError = "raise",
        use_progress: bool | None = None,
    ) -> Any:
        """Complete prompts.

        Args:
            prompts: Text; token ids; a mapping with `prompt` or `prompt_token_ids`, `multi_modal_data`,
                `mm_processor_kwargs`; or a list of these. The prompt is the caller's own template: its placeholders
                bind the media items in order.
            sampling_params: One for all or one for each; None: the model's own generation config.
            stream: Return an iterator of `RequestOutput`s whose completions hold what is new.
            on_error: `raise` stops at the first failure (finished outputs are in its `partial_results`); `return` puts each
                failure into its output's `error`.
            use_progress: Show a progress bar; None: for several prompts.

        Returns:
            A list of `RequestOutput` in the order of the prompts, or an iterator when streaming.

        Raises:
            RequestError: A prompt cannot be served. All prompts are checked before any is started.
        """
        listed = _as_list(prompts)
        process = self.engine.inputs.process
        inputs = [(lambda p=p: process(p)) for p in listed]
        return self._serve(inputs, sampling_params, stream, on_error, use_progress)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: bool = False,
        on_error: OnError = "raise",
        use_progress: bool | None = None,
        **template_kwargs: Any,
    ) -> Any:
        """Answer conversations, rendered by the model's chat template.

        Args:
            messages: One conversation or a list of them, in HF's or OpenAI's form; media stand as content parts. Text never
                binds media: a user who types a placeholder has typed its characters.
            template_kwargs: Passed to the template.

        Other arguments, the result and the errors are those of `generate`.
        """
        several = bool(messages) and not isinstance(messages[0], Mapping)
        conversations: list[Any] = list(messages) if several else [messages]
        process = self.engine.inputs.process_chat
        inputs = [(lambda m=m: process(m, **template_kwargs)) for m in conversations]
        return self._serve(inputs, sampling_params, stream, on_error, use_progress)

    def abort(self, request_id: str | Iterable[str]) -> None:
        """End requests; what they have so far is returned with `finish_reason="abort"`."""
        for parent in [request_id] if isinstance(request_id, str) else request_id:
            job = self._jobs.get(parent)
            if job is not None:
                self.engine.abort(r.request_id for r in job.requests)

    @property
    def plan(self) -> EnginePlan:
        """What start-up decided: plugin, dtype, pages."""
        return self.engine.plan

    def get_tokenizer(self) -> Any:
        """The HF tokenizer."""
        return self.engine.inputs.tokenizer

    def default_sampling_params(self) -> SamplingParams:
        """What the model's generation_config.json asks for: greedy unless it says `do_sample`."""
        return self._defaults

    @cached_property
    def _defaults(self) -> SamplingParams:
        found = self.engine.checkpoint.generation_defaults()
        if not found.get("do_sample"):
            return SamplingParams(temperature=0.0, max_tokens=found.get("max_new_tokens"))
        names = ("temperature", "top_p", "top_k")
        given = {k: found[k] for k in names if found.get(k) is not None}
        return SamplingParams(max_tokens=found.get("max_new_tokens"), **given)

    def close(self) -> None:
        """Free the model and its pages."""
        self.engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- how it is done ---------------------------------------------------------------------------------------------

    def _serve(
        self, inputs: Sequence[Any], params: Any, stream: bool, on_error: OnError, use_progress: bool | None
    ) -> Any:
        if on_error not in ("raise", "return"):
            raise InvalidRequestError(f"on_error is 'raise' or 'return', not {on_error!r}", param="on_error")
        jobs = self._make_jobs(inputs, self._params_for(params, len(inputs)), stream, on_error)
        if stream:
            return self._stream(jobs, on_error)
        show = len(jobs) > 1 if use_progress is None else use_progress
        meter = ProgressMeter(len(jobs), quiet=not show or self.engine.config.disable_progress)
        try:
            for job in self._run(jobs, on_error):
                if job.finished:
                    meter.done(sum(r.output_len for r in job.requests))
        finally:
            meter.close()
        return [j.output for j in jobs]

    def _params_for(self, params: Any, count: int) -> list[SamplingParams]:
        if params is None:
            return [self.default_sampling_params()] * count
        if isinstance(params, SamplingParams):
            return [params] * count
        found = list(params)
        if len(found) != count or not all(isinstance(p, SamplingParams) for p in found):
            raise InvalidRequestError(
                f"{count} prompts need one SamplingParams or {count} of them, not {len(found)}", param="sampling_params"
            )
        return found

    def _make_jobs(
        self, inputs: Sequence[Any], params: list[SamplingParams], stream: bool, on_error: OnError
    ) -> list[_Job]:
        """Check every prompt before anything is started."""
        jobs = []
        for index, (process, p) in enumerate(zip(inputs, params)):
            request_id = f"{next(self._counter)}-{uuid.uuid4().hex[:8]}"
            try:
                jobs.append(self._make_job(request_id, process(), p, stream))
            except EngineError as e:
                if on_error == "raise":
                    if len(inputs) > 1:
                        e.message = f"prompt {index}: {e.message}"
                        e.args = (e.message,)
                    raise
                jobs.append(_Job(RequestOutput(request_id, None, [], [], finished=True, error=e), p, [], [], False))
        return jobs

    def _make_job(self, request_id: str, made: ProcessedInput, params: SamplingParams, stream: bool) -> _Job:
        ids = made.prompt.prompt_token_ids
        left = self.engine.plan.max_model_len - len(ids)
        if params is self._defaults:  # the model's own limit gives way to the context, a caller's does not
            params = replace(params, max_tokens=min(params.max_tokens or left, left))
        if params.max_tokens is not None and params.max_tokens > left:
            raise ContextLengthError(
                f"the prompt has {len(ids)} tokens and max_tokens={params.max_tokens}, together {len(ids) + params.max_tokens}, "
                f"but this engine's sequences hold {self.engine.plan.max_model_len}; "
                f"at most max_tokens={left} fits, and None takes what is left",
                param="sampling_params.max_tokens",
            )
        requests = [
            Request(
                request_id=f"{request_id}-{i}",
                token_ids=list(ids),
                prompt_len=len(ids),
                params=params,
                max_tokens=params.max_tokens or left,
                eos_token_ids=self.engine.eos_token_ids,
                seed=self._seed(params, request_id, i),
                items=made.prompt.items,
            )
            for i in range(params.n)
        ]
        texts = [
            Detokenizer(
                self.engine.inputs.tokenizer,
                params.stops,
                keep_stop=params.include_stop_str_in_output,
                skip_special_tokens=params.skip_special_tokens,
            )
            for _ in requests
        ]
        output = RequestOutput(request_id, made.text, list(ids), [], metrics=requests[0].metrics)
        return _Job(output, params, requests, texts, stream or bool(params.stops), [False] * params.n)

    def _seed(self, params: SamplingParams, request_id: str, index: int) -> int:
        """64 bits for a sequence's draws: from its own seed, or from the engine's and its number."""
        if params.seed is not None:
            # Not the sampler's own increment: one sequence's draws would be the next one's, shifted by a token.
            return (params.seed + index * 0xD1342543DE82EF95) & _MASK
        number = int(request_id.partition("-")[0])
        return (
            self.engine.config.seed * 0xD1342543DE82EF95 + (number * 1000003 + index + 1) * 0x2545F4914F6CDD1D
        ) & _MASK

    def _run(self, jobs: Sequence[_Job], on_error: OnError) -> Iterator[_Job]:
        """Run jobs together; yields each one when it has something new. Whatever happens, nothing stays behind."""
        owner = {r.request_id: (job, i) for job in jobs for i, r in enumerate(job.requests)}
        failure: EngineError | None = None
        try:
            for job in jobs:
                self._start(job, on_error)
            yield from (j for j in jobs if not j.requests)
            while any(not j.output.finished for j in jobs):
                changed = self._step(jobs, owner)
                for job in changed:
                    failure = failure or job.output.error
                    yield job
                if failure is not None and on_error == "raise":
                    raise failure
        except EngineError as e:
            e.partial_results = [j.output for j in jobs if j.output.finished and j.output.error is None]
            raise
        finally:
            self.engine.abort(owner)
            for job in jobs:
                self._jobs.pop(job.output.request_id, None)

    def _start(self, job: _Job, on_error: OnError) -> None:
        self._jobs[job.output.request_id] = job
        try:
            for request in job.requests:
                self.engine.add(request)
        except EngineError as e:
            if on_error == "raise" or isinstance(e, EngineDeadError):
                raise
            self.engine.abort(r.request_id for r in job.requests)
            job.output.error, job.output.finished, job.requests, job.ended = e, True, [], []

    def _step(self, jobs: Sequence[_Job], owner: Mapping[str, tuple[_Job, int]]) -> list[_Job]:
        """One step of the engine; the jobs of ours that it changed, brought up to date."""
        changed: dict[int, _Job] = {}
        for request in self.engine.step() if self.engine.scheduler.has_work else ():
            if request.request_id not in owner:
                continue
            job, index = owner[request.request_id]
            if job.watched or request.finished:
                self._update(job, index)
                changed[id(job)] = job
        for job in jobs:  # ended between our steps: aborted, or by another thread's step
            for index, request in enumerate(job.requests):
                if request.finished and not job.ended[index]:
                    self._update(job, index)
                    changed[id(job)] = job
        return list(changed.values())

    def _update(self, job: _Job, index: int) -> None:
        """Bring a sequence's text up to date; a stop string ends it."""
        request, text = job.requests[index], job.texts[index]
        if text.stopped_by is None:
            new = request.token_ids[request.prompt_len + len(text.ids) :]
            hit = text.append_one_by_one(new) if job.params.stops else text.append(new)
            if hit is None and request.finished:
                hit = text.finish()
            if hit is not None and request.finish_reason not in ("abort", "error"):
                self.engine.stop(request, hit)
            job.ended[index] = request.finished
        if all(job.ended):
            self._complete(job)

    def _complete(self, job: _Job) -> None:
        job.output.outputs = [self._completion(job, i) for i in range(len(job.requests))]
        job.output.error = next((r.error for r in job.requests if r.error is not None), None)
        job.output.finished = True

    def _completion(self, job: _Job, index: int) -> CompletionOutput:
        request, text = job.requests[index], job.texts[index]
        ids = list(text.ids)
        logprobs = request.logprobs[: len(ids)] if job.params.logprobs is not None else None
        return CompletionOutput(
            index=index,
            text=text.text,
            token_ids=ids,
            logprobs=logprobs,
            cumulative_logprob=sum(p[t].logprob for p, t in zip(logprobs, ids)) if logprobs is not None else None,
            finish_reason=request.finish_reason if job.ended[index] else None,
            stop_reason=request.stop_reason if job.ended[index] else None,
        )

    def _stream(self, jobs: Sequence[_Job], on_error: OnError) -> Iterator[RequestOutput]:
        sent: dict[str, int | None] = {}
        for job in self._run(jobs, on_error):
            deltas = []
            for i, (request, text) in enumerate(zip(job.requests, job.texts)):
                whole = self._completion(job, i)
                start, ended = sent.get(request.request_id, 0), job.ended[i]
                if start is None or (len(whole.token_ids) == start and not ended):
                    continue  # it has ended before, or has nothing new
                new = text.delta(finished=ended)
                logprobs = whole.logprobs[start:] if whole.logprobs is not None else None
                deltas.append(replace(whole, text=new, token_ids=whole.token_ids[start:], logprobs=logprobs))
                sent[request.request_id] = None if ended else len(whole.token_ids)
            if deltas or job.output.error is not None:
                yield replace(job.output, outputs=deltas)


def _as_list(prompts: Any) -> list[Any]:
    """One prompt or several → a list. A list of whole numbers is one prompt."""
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if hasattr(prompts, "tolist"):
        prompts = prompts.tolist()
    if not isinstance(prompts, Sequence):
        raise InvalidRequestError(
            f"a prompt is text, token ids or a mapping, not a {type(prompts).__name__}", param="prompts"
        )
    if prompts and all(isinstance(p, Integral) and not isinstance(p, bool) for p in prompts):
        return [list(prompts)]
    return list(prompts)

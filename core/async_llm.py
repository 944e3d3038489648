"""`AsyncLLM`: the engine inside an asyncio program. Each request is an async iterator of its outputs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from sdk.speech import Task, Timestamps

from .engine import Engine
from .engine_thread import EngineThread
from .errors import DrainingError, InvalidRequestError, OverloadedError, RequestTimeoutError
from .inputs import ProcessedInput
from .job_runner import OnError
from .jobs import Job, JobMaker, check_priority
from .llm import Messages, Prompt, check_on_error
from .outputs import RequestOutput
from .plan import EnginePlan
from .pooling import ClassificationOutput, EmbeddingOutput, PoolingParams, ScoringOutput
from .pooling.async_call import answered
from .pooling.calls import PoolingCall, classify_call, embed_call, score_call
from .pooling.params import NO_TOKENS
from .sampling import SamplingParams
from .served import ServedEngine, Stepper
from .stream import Stream, check_request_id, checked_timeout
from .transcription.room import Room
from .whole import Whole

T = TypeVar("T")
Process = Callable[[], ProcessedInput]
Watch = Callable[[AsyncGenerator[RequestOutput, None]], AsyncGenerator[RequestOutput, None]]
MAX_PROCESSING_THREADS = 4
"""Prompts are tokenized, and their pictures decoded and resized, by at most so many threads."""


class AsyncLLM:
    """A model, loaded into this process, that steps in a thread of its own.

    Prompts are processed in worker threads and text is made in the event loop, so nothing of either delays a step. May be
    used from several event loops.

    Args:
        model: Folder in HF layout, hub id, or a shipped demo such as `demo/llava`.
        options: See `core.EngineConfig`; an unknown one is an error. Loading blocks; see `create`.

    Raises:
        StartupError: The model cannot be loaded as asked; nothing stays behind.
    """

    def __init__(self, model: str, **options: Any) -> None:
        engine = Engine(str(model), options)
        self._open(engine, EngineThread(engine))

    def _open(self, engine: ServedEngine, thread: Stepper, threads: int | None = None) -> None:
        """Serve with an engine and who steps it; prompts are processed in so many threads."""
        self.engine, self._thread = engine, thread
        self._maker = JobMaker(engine)
        self._workers = ThreadPoolExecutor(threads or min(MAX_PROCESSING_THREADS, os.cpu_count() or 1), "engine-inputs")
        self._streams: dict[str, Stream] = {}
        self._queued: dict[str, Stream] = {}
        self._wholes: dict[Whole, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()  # of the three above: requests may live in several event loops
        self._room = Room()  # for decoded clips
        self._draining = False
        self._empty: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        # Whoever forgets to close: the thread ends when this object is collected, or with the interpreter.
        weakref.finalize(self, thread.close)

    @classmethod
    async def create(cls, model: str, **options: Any) -> AsyncLLM:
        """Load a model without blocking the event loop."""
        return await asyncio.to_thread(cls, model, **options)

    # ---- what users call --------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Complete a prompt. Nothing happens before the iteration begins.

        Args:
            prompt: As `LLM.generate` takes one: text, token ids or a mapping.
            sampling_params: None: the model's own generation config. Its `output_kind` says what comes: all so far
                (the default), what is new, or the end alone. Whoever reads slowly gets several steps in one output.
            request_id: What to call the request; while another is so called, its number is added. None: its number.
            timeout: Seconds until the request ends with `RequestTimeoutError`.
            priority: The lower, the earlier its turn; those of equal priority take turns by arrival.

        Yields:
            Outputs, the last one `finished`. To leave early is to abort: on cancellation at once, on `break` when the
            generator is closed (`contextlib.aclosing` does it at a known time).

        Raises:
            RequestError: The prompt cannot be served.
            OverloadedError: As many requests wait as may (`max_queued_requests`), or as many tokens (`max_queued_tokens`).
            RequestTimeoutError: The deadline passed; what there was is in `partial_results`, and has been yielded where
                outputs are.
            EngineDeadError: The engine has stopped, or is closed meanwhile.
        """
        process = self.engine.inputs.process
        return self._serve(lambda: process(prompt), sampling_params, request_id, timeout, priority)

    def chat(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        tools: Sequence[Any] | None = None,
        **template_kwargs: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Answer a conversation, rendered by the model's chat template; otherwise as `generate`.

        Args:
            messages: As `LLM.chat` takes one conversation.
            tools: As `LLM.chat` takes them.
            template_kwargs: Passed to the template.
        """
        process = functools.partial(self.engine.inputs.process_chat, messages, tools=tools, **template_kwargs)
        return self._serve(process, sampling_params, request_id, timeout, priority)

    def transcribe(
        self,
        audio: Any,
        *,
        language: str | None = None,
        task: Task = "transcribe",
        prompt: str | None = None,
        temperature: float = 0.0,
        timestamps: Timestamps | None = None,
        to_language: str | None = None,
        stream: bool = False,
        on_error: OnError = "raise",
        timeout: float | None = None,
        priority: int = 0,
        watch: Watch | None = None,
    ) -> Any:
        """Turn speech into text, beside other requests. Whoever stops waiting, or reading, aborts it.

        Args:
            audio: As `LLM.transcribe` takes it; so are the other arguments.
            stream: Return an asynchronous iterator of `TranscriptionDelta`s.
            timeout: Seconds until it ends with `RequestTimeoutError`.
            priority: The lower, the earlier the turn of its pieces.
            watch: Given the outputs of each prompt that it takes, which are the whole so far, gives them on: for who counts.

        Returns:
            To be awaited: a `Transcription`, or a list of them for a list.

        Raises:
            MediaError: A clip is no sound, or too long.
            InvalidRequestError: The model does not transcribe, or not so.
            OverloadedError: As many requests wait as may (`max_queued_requests`).
        """
        from .transcription.async_request import AsyncRequest

        check_on_error(on_error)
        check_priority(priority)
        wishes: dict[str, Any] = {
            "language": language,
            "to_language": to_language,
            "task": task,
            "prompt": prompt,
            "temperature": temperature,
            "timestamps": timestamps,
        }
        process, whole = self.engine.inputs.process, Whole()

        def complete(prompt: Any, params: SamplingParams) -> AsyncGenerator[RequestOutput, None]:
            outputs = self._serve(lambda: process(prompt), params, None, None, priority, whole)
            return outputs if watch is None else watch(outputs)

        request = AsyncRequest(self.engine, audio, wishes, timeout, complete, self._in_thread, self._room)
        held = self._held(whole)
        return request.deltas(held, on_error) if stream else request.transcriptions(held, on_error)

    def encode(
        self,
        prompt: Prompt,
        params: PoolingParams,
        request_id: str | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Pool a prompt; otherwise as `generate`. The only output is the last, and what was made stands in its `pooled`.

        Args:
            prompt: As `LLM.embed` takes one.
            params: What is made of it.
            request_id: As of `generate`.
            timeout: As of `generate`.
            priority: As of `generate`.
        """
        return self._encode(prompt, params, request_id, timeout, priority)

    async def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        truncate: int | bool | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        on_error: OnError = "raise",
        timeout: float | None = None,
        priority: int = 0,
    ) -> list[EmbeddingOutput]:
        """Make a vector of each prompt, as `LLM.embed` does, beside other requests.

        Args:
            prompts: As `LLM.embed` takes them; so are truncate, dimensions, normalize and on_error.
            timeout: Seconds until it ends with `RequestTimeoutError`.
            priority: The lower, the earlier the turn of its prompts.

        Raises:
            OverloadedError: As many requests wait as may (`max_queued_requests`).
        """
        params = PoolingParams("embed", dimensions, normalize, truncate)
        call = embed_call(self.engine, prompts, params)
        return await self.pool(call, on_error, timeout=timeout, priority=priority)

    async def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        truncate: int | bool | None = None,
        on_error: OnError = "raise",
        timeout: float | None = None,
        priority: int = 0,
    ) -> list[ClassificationOutput]:
        """As `LLM.classify`; timeout and priority as of `embed`."""
        call = classify_call(self.engine, prompts, truncate)
        return await self.pool(call, on_error, timeout=timeout, priority=priority)

    async def score(
        self,
        query: str,
        documents: str | Sequence[str],
        *,
        truncate: int | bool | None = None,
        on_error: OnError = "raise",
        timeout: float | None = None,
        priority: int = 0,
    ) -> list[ScoringOutput]:
        """As `LLM.score`; timeout and priority as of `embed`."""
        call = score_call(self.engine, query, documents, truncate)
        return await self.pool(call, on_error, timeout=timeout, priority=priority)

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End requests; what they have so far is their last output, with `finish_reason="abort"`."""
        for name in [request_id] if isinstance(request_id, str) else list(request_id):
            stream = self._streams.get(name)
            if stream is not None:
                stream.abort()

    async def close(self, *, drain: float | None = 0.0) -> None:
        """Take no more requests, let those in flight end, then free the model.

        Args:
            drain: Seconds that requests in flight are given; None: as many as they take. Those left over then end with
                `EngineDeadError`.
        """
        self._draining = True
        empty, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._lock:
            self._empty.append((loop, empty))
            self._streams = {name: s for name, s in self._streams.items() if not s.loop.is_closed()}
            self._wholes = {whole: home for whole, home in self._wholes.items() if not home.is_closed()}
            if not self._streams and not self._wholes:
                empty.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(empty.wait(), drain)
        await asyncio.to_thread(self._thread.close)
        self._workers.shutdown(wait=False)

    async def check_health(self) -> None:
        """Return where the engine can serve.

        Raises:
            EngineDeadError: It has stopped.
        """
        if self.engine.dead is not None:
            raise self.engine.stopped()

    @property
    def plan(self) -> EnginePlan:
        """What start-up decided: plugin, dtype, pages."""
        return self.engine.plan

    def get_tokenizer(self) -> Any:
        """The HF tokenizer."""
        return self.engine.inputs.tokenizer

    def default_sampling_params(self) -> SamplingParams:
        """What the model's generation_config.json asks for: greedy unless it says `do_sample`."""
        return self._maker.defaults

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- how it is done ---------------------------------------------------------------------------------------------

    async def _serve(
        self,
        process: Process,
        params: SamplingParams | None,
        request_id: str | None,
        timeout: float | None,
        priority: int,
        whole: Whole | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Serve one prompt. `whole`: what it is a part of; that has been admitted, so this is not refused any more."""
        chosen = self._maker.defaults if params is None else params
        if not isinstance(chosen, SamplingParams):
            raise InvalidRequestError(
                f"sampling_params is a SamplingParams, not a {type(chosen).__name__}", param="sampling_params"
            )
        check_request_id(request_id)
        timeout = checked_timeout(timeout)
        if whole is None:
            self._check_room()
        stream = self._register(request_id, chosen, timeout, whole)
        try:
            make, held = self._maker.make, [process]
            # What is processed is let go of in the thread, as soon as that is done: it may be large, and freeing it takes time.
            del process
            job = await self._made(stream, lambda: make(stream.job_id, held.pop()(), chosen, priority))
            if whole is None:
                self._check_backlog(job)
            stream.begin(job)
            while (output := await stream.next()) is not None:
                yield output
        finally:
            stream.close()
            self._release(stream)

    def _encode(
        self,
        prompt: Prompt,
        params: PoolingParams,
        request_id: str | None,
        timeout: float | None,
        priority: int,
        whole: Whole | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        process = functools.partial(self.engine.inputs.process_pooled, prompt, params)
        return self._serve(process, NO_TOKENS, request_id, timeout, priority, whole)

    async def pool(
        self, call: PoolingCall[T], on_error: OnError = "raise", *, timeout: float | None = None, priority: int = 0
    ) -> list[T]:
        """Answer a call: what `embed`, `classify` and `score` have in common."""
        check_on_error(on_error)
        check_priority(priority)
        timeout, whole = checked_timeout(timeout), Whole()

        def start(prompt: Prompt) -> AsyncGenerator[RequestOutput, None]:
            return self._encode(prompt, call.params, None, None, priority, whole)

        with self._held(whole):
            try:
                async with asyncio.timeout(timeout):  # of all of them together
                    return await answered(call, start, raises=on_error == "raise")
            except TimeoutError:
                raise RequestTimeoutError(
                    f"the request's {timeout:g} s were over before all of its {len(call.prompts)} prompts were answered",
                    param="timeout",
                ) from None

    def _check_room(self) -> None:
        """Refuse one request more, where the engine has stopped, is being closed, or has too many."""
        if self.engine.dead is not None:
            raise self.engine.stopped()
        if self._draining:
            raise DrainingError("the engine is being closed and takes no more requests")
        with self._lock:
            most = self.engine.config.max_queued_requests
            wholes = sum(not whole.has_begun and not loop.is_closed() for whole, loop in self._wholes.items())
            if wholes + len(self._queued) >= most:
                self._queued = {n: s for n, s in self._queued.items() if s.is_queued and not s.loop.is_closed()}
            if wholes + len(self._queued) >= most:
                raise OverloadedError(
                    f"{most} requests wait already; try again later, or raise max_queued_requests", param="request_id"
                )

    def _register(
        self, request_id: str | None, params: SamplingParams, timeout: float | None, whole: Whole | None
    ) -> Stream:
        """A stream with a name that no other has. The first of a whole waits in its place."""
        if self.engine.dead is not None:
            raise self.engine.stopped()
        job_id = self._maker.next_id()
        with self._lock:
            name = request_id or job_id
            if name in self._streams:
                name = f"{name}-{job_id}"
            stream = Stream(name, job_id, params.output_kind, self._thread, timeout)
            self._streams[name] = self._queued[name] = stream
            if whole is not None:
                whole.has_begun = True
        return stream

    @contextlib.contextmanager
    def _held(self, whole: Whole) -> Iterator[None]:
        """Admit a request of several prompts, and have `close` wait for it also between two of them."""
        self._check_room()
        with self._lock:
            self._wholes[whole] = asyncio.get_running_loop()
        try:
            yield
        finally:
            with self._lock:
                self._wholes.pop(whole, None)  # `close` forgets those whose loop was closed
            self._tell_if_empty()

    def _check_backlog(self, job: Job) -> None:
        """Refuse a job with which too many tokens would wait; one that waits alone may have any number."""
        most, count = self.engine.config.max_queued_tokens, len(job.output.prompt_token_ids)
        with self._lock:
            waiting = sum(s.waiting_tokens for s in self._queued.values() if not s.loop.is_closed())
        if waiting and waiting + count > most:
            raise OverloadedError(
                f"{waiting} tokens of prompts wait already, and this one has {count}; try again later, or raise "
                f"max_queued_tokens={most}",
                param="prompt",
            )

    async def _made(self, stream: Stream, make: Callable[[], Job]) -> Job:
        """A job, made in a worker thread: prompts are processed there, and grammars compiled."""

        def work() -> Job:
            if self.engine.dead is not None:  # what waited for a worker while the engine was closed
                raise self.engine.stopped()
            return make()

        limit = asyncio.timeout_at(stream.deadline)
        try:
            async with limit:
                return await stream.loop.run_in_executor(self._workers, work)
        except TimeoutError:
            if limit.expired():
                raise stream.timed_out() from None
            raise

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a worker thread, unless the engine has stopped."""
        if self.engine.dead is not None:
            raise self.engine.stopped()
        return await asyncio.get_running_loop().run_in_executor(self._workers, function, *arguments)

    def _release(self, stream: Stream) -> None:
        with self._lock:
            self._streams.pop(stream.name, None)
            self._queued.pop(stream.name, None)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        with self._lock:
            waiting = self._empty if not self._streams and not self._wholes else []
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

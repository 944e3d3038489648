"""`LLM`: the engine inside a Python program. Prompts in, completions out, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from sdk.speech import Task, Timestamps

from .engine import Engine
from .errors import InvalidRequestError
from .job_runner import JobRunner, OnError
from .jobs import Job, check_priority
from .outputs import RequestOutput, RequestOutputKind
from .plan import EnginePlan
from .pooling import ClassificationOutput, EmbeddingOutput, PoolingParams, ScoringOutput
from .pooling.calls import PoolingCall, classify_call, embed_call, score_call
from .pooling.params import NO_TOKENS
from .prompt_forms import as_list
from .sampling import SamplingParams

T = TypeVar("T")
Prompt = str | Sequence[int] | Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]


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
        self.runner = JobRunner(self.engine)

    # ---- what users call --------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: bool = False,
        on_error: OnError = "raise",
        use_progress: bool | None = None,
        priority: int | Sequence[int] = 0,
    ) -> Any:
        """Complete prompts.

        Args:
            prompts: Text; token ids; a mapping with `prompt`, `prompt_token_ids` or `prompt_embeds`, `multi_modal_data`,
                `mm_processor_kwargs`, `cache_salt`; or a list of these. The prompt is the caller's own template: its
                placeholders bind the media items in order.
            sampling_params: One for all or one for each; None: the model's own generation config.
            stream: Return an iterator of `RequestOutput`s whose completions hold what is new; or what the parameters'
                `output_kind` says.
            on_error: `raise` stops at the first failure (finished outputs are in its `partial_results`); `return` puts each
                failure into its output's `error`.
            use_progress: Show a progress bar; None: for several prompts.
            priority: One for all or one for each; the lower, the earlier its turn.

        Returns:
            A list of `RequestOutput` in the order of the prompts, or an iterator when streaming.

        Raises:
            RequestError: A prompt cannot be served. All prompts are checked before any is started.
        """
        listed = as_list(prompts)
        process = self.engine.inputs.process
        inputs = [(lambda p=p: process(p)) for p in listed]
        return self._serve(inputs, sampling_params, stream, on_error, use_progress, priority)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stream: bool = False,
        on_error: OnError = "raise",
        use_progress: bool | None = None,
        priority: int | Sequence[int] = 0,
        tools: Sequence[Any] | None = None,
        **template_kwargs: Any,
    ) -> Any:
        """Answer conversations, rendered by the model's chat template.

        Args:
            messages: One conversation or a list of them, in HF's or OpenAI's form; media stand as content parts. Text never
                binds media: a user who types a placeholder has typed its characters.
            tools: Functions that the model may ask for, in OpenAI's form or as Python functions with a docstring; the
                template must know of tools. What it asks for is in each completion's `tool_calls`.
            template_kwargs: Passed to the template; `cache_salt` keeps conversations of other salts apart.

        Other arguments, the result and the errors are those of `generate`.
        """
        several = bool(messages) and not isinstance(messages[0], Mapping)
        conversations: list[Any] = list(messages) if several else [messages]
        process = self.engine.inputs.process_chat
        inputs = [(lambda m=m: process(m, tools=tools, **template_kwargs)) for m in conversations]
        return self._serve(inputs, sampling_params, stream, on_error, use_progress, priority)

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
        use_progress: bool | None = None,
    ) -> Any:
        """Turn speech into text, with a model that does.

        Args:
            audio: A clip, or a list of them: a path, bytes of a file, a `data:` URI or `(wave, rate)`.
            language: Code or name of the language that is spoken; None: detected where the model can, else its default.
            task: `transcribe`, or `translate` into another language.
            prompt: Text that comes before, such as names to expect.
            temperature: 0: the likeliest text. A text that the model doubts may be drawn anew at higher temperatures.
            timestamps: When each `segment` or `word` was said; None: the text alone.
            to_language: To translate to; None: the model's own choice.
            stream: Return an iterator of `TranscriptionDelta`s.
            on_error: As `generate`; of a stream, a clip's failure stands in its last delta's `done`.
            use_progress: Show a progress bar; None: for several clips.

        Returns:
            A `Transcription`, or a list of them for a list.

        Raises:
            MediaError: A clip is no sound, or too long.
            InvalidRequestError: The model does not transcribe, or not so.
        """
        from .media.audio_limits import AudioLimits
        from .transcription.clips import as_clips
        from .transcription.speech import Speech
        from .transcription.transcriber import Transcriber
        from .transcription.wishes import checked_wish

        check_on_error(on_error)
        clips, single = as_clips(audio)
        speech = Speech(self.engine)
        wish = checked_wish(
            speech,
            language=language,
            to_language=to_language,
            task=task,
            prompt=prompt,
            temperature=temperature,
            timestamps=timestamps,
        )
        transcriber = Transcriber(speech, self.runner, AudioLimits(seconds=self.engine.config.max_audio_seconds))
        if stream:
            return transcriber.stream(clips, wish, on_error)
        show = len(clips) > 1 if use_progress is None else use_progress
        made = transcriber.transcribe(clips, wish, on_error, show_progress=show)
        return made[0] if single else made

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        truncate: int | bool | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        on_error: OnError = "raise",
        use_progress: bool | None = None,
    ) -> list[EmbeddingOutput]:
        """Make a vector of each prompt, with a model that does; one that generates does with `LLM(…, task="embed")`.

        Args:
            prompts: As `generate` takes them.
            truncate: Most tokens to read, or True for as many as the model takes; None: a longer prompt is refused.
            dimensions: Keep this many of each vector's first numbers, as models trained for it allow.
            normalize: Whether vectors have length 1; None: as the model's folder says.
            on_error: As `generate`.
            use_progress: Show a progress bar; None: for several prompts.

        Raises:
            RequestError: A prompt cannot be served, or the model makes no embeddings.
        """
        params = PoolingParams("embed", dimensions, normalize, truncate)
        return self.pool(embed_call(self.engine, prompts, params), on_error, use_progress)

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        truncate: int | bool | None = None,
        on_error: OnError = "raise",
        use_progress: bool | None = None,
    ) -> list[ClassificationOutput]:
        """Say of each prompt which class it is of, with a classifier. Arguments and errors are those of `embed`; a pair of
        texts is `{"prompt": …, "text_pair": …}`."""
        return self.pool(classify_call(self.engine, prompts, truncate), on_error, use_progress)

    def score(
        self,
        query: str,
        documents: str | Sequence[str],
        *,
        truncate: int | bool | None = None,
        on_error: OnError = "raise",
        use_progress: bool | None = None,
    ) -> list[ScoringOutput]:
        """Say of each document how well it answers a query: a cross-encoder reads both together; of a model that makes
        embeddings it is the cosine. Arguments and errors are those of `embed`."""
        return self.pool(score_call(self.engine, query, documents, truncate), on_error, use_progress)

    def abort(self, request_id: str | Iterable[str]) -> None:
        """End requests; what they have so far is returned with `finish_reason="abort"`."""
        self.runner.abort([request_id] if isinstance(request_id, str) else request_id)

    @property
    def plan(self) -> EnginePlan:
        """What start-up decided: plugin, dtype, pages."""
        return self.engine.plan

    def get_tokenizer(self) -> Any:
        """The HF tokenizer."""
        return self.engine.inputs.tokenizer

    def default_sampling_params(self) -> SamplingParams:
        """What the model's generation_config.json asks for: greedy unless it says `do_sample`."""
        return self.runner.maker.defaults

    def reset_caches(self) -> None:
        """Forget what earlier requests left: pages, embeddings, processed media. Running requests are not touched."""
        self.engine.reset_caches()

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
        self,
        inputs: Sequence[Any],
        params: Any,
        stream: bool,
        on_error: OnError,
        use_progress: bool | None,
        priority: int | Sequence[int],
    ) -> Any:
        check_on_error(on_error)
        priorities = _priorities(priority, len(inputs))
        jobs = self.runner.make(inputs, self._params_for(params, len(inputs)), on_error, priorities)
        if stream:
            return self._stream(jobs, on_error)
        show = len(jobs) > 1 if use_progress is None else use_progress
        return self.runner.finish(jobs, on_error, show_progress=show)

    def pool(self, call: PoolingCall[T], on_error: OnError = "raise", use_progress: bool | None = None) -> list[T]:
        """Answer a call: what `embed`, `classify` and `score` have in common."""
        check_on_error(on_error)
        process = self.engine.inputs.process_pooled
        inputs = [(lambda p=p: process(p, call.params)) for p in call.prompts]
        jobs = self.runner.make(inputs, [NO_TOKENS] * len(inputs), on_error)
        show = len(jobs) > 1 if use_progress is None else use_progress
        return call.read(self.runner.finish(jobs, on_error, show_progress=show))

    def _params_for(self, params: Any, count: int) -> list[SamplingParams]:
        if params is None:
            return [self.default_sampling_params()] * count
        if isinstance(params, SamplingParams):
            return [params] * count
        found = list(params) if isinstance(params, Iterable) and not isinstance(params, Mapping) else [params]
        wrong = next((type(p).__name__ for p in found if not isinstance(p, SamplingParams)), None)
        if wrong is not None:
            raise InvalidRequestError(
                f"sampling_params is a SamplingParams or a list of them, not a {wrong}", param="sampling_params"
            )
        if len(found) != count:
            raise InvalidRequestError(
                f"{count} prompts need one SamplingParams or {count} of them, not {len(found)}", param="sampling_params"
            )
        return found

    def _stream(self, jobs: Sequence[Job], on_error: OnError) -> Iterator[RequestOutput]:
        for job in self.runner.run(jobs, on_error, stream=True):
            output = job.take(job.params.output_kind or RequestOutputKind.DELTA)
            if output is not None:
                yield output


def check_on_error(on_error: Any) -> None:
    """Refuse what is no way to treat an error."""
    if on_error not in ("raise", "return"):
        raise InvalidRequestError(f"on_error is 'raise' or 'return', not {on_error!r}", param="on_error")


def _priorities(given: int | Sequence[int], count: int) -> list[int]:
    """One priority for each prompt."""
    found = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * count
    if len(found) != count:
        raise InvalidRequestError(
            f"{count} prompts need one whole number or {count} of them, not {len(found)}", param="priority"
        )
    for priority in found:
        check_priority(priority)
    return found

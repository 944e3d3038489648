"""The engine: add requests, call `step` until there is nothing left to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .bind import allocate_pages, bind, page_shapes, rotary_embeddings, unbind
from .cache.pages import PagePool
from .checkpoint import Checkpoint, locate
from .config import EngineConfig
from .demos import find_demo
from .errors import (
    CapacityError,
    ContextLengthError,
    EngineDeadError,
    EngineError,
    InvalidConfigError,
    NumericalError,
    PluginRuntimeError,
)
from .inputs import InputProcessor
from .loader import build_model, fill_model, materialize, resolve_device, resolve_dtype
from .memory import available_bytes
from .outputs import Logprob
from .plugins import Catalog
from .process import prepare_process
from .request import Request
from .runner import Runner, StepResult
from .sampler import Sampled, sample
from .scheduler import Scheduler, StepPlan
from .step import StepBuilder, StepHolder

CPU_CACHE_SHARE = 0.4
"""Most of the free memory that the page pool may take when nobody says how much."""


@dataclass(frozen=True)
class EnginePlan:
    """What start-up decided, for banners and bug reports.

    Attributes:
        architecture, plugin: What runs, and who brought it.
        dtype, device: How.
        max_model_len: Longest sequence.
        num_pages, page_size: The pool.
        bytes_per_token: K/V of one token in all layers.
    """

    architecture: str
    plugin: str
    dtype: str
    device: str
    max_model_len: int
    num_pages: int
    page_size: int
    bytes_per_token: int

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the pool holds."""
        return self.num_pages * self.page_size


class Engine:
    """One model, loaded and ready.

    Args:
        model: Folder, hub id, or `demo/…`.
        options: See `EngineConfig`.
    """

    def __init__(self, model: str, options: dict[str, object]) -> None:
        prepare_process()
        asked = EngineConfig.make(model, options)
        folder = find_demo(asked.model) or locate(asked.model, asked.revision)
        self.checkpoint = Checkpoint(folder, asked.hf_overrides)
        self.plugin = Catalog.installed().resolve(self.checkpoint.architecture, pins=asked.plugins)
        self.capabilities = self.plugin.capabilities(self.checkpoint.view)
        self._refuse_what_it_cannot()
        self.config = EngineConfig.make(model, options, self.plugin.architecture.runtime_defaults)
        self.dtype, self.device = resolve_dtype(self.config, self.checkpoint), resolve_device(self.config)
        self.model = build_model(self.plugin, self.config, self.checkpoint, self.dtype)
        materialize(self.model, self.dtype, self.device)
        fill_model(self.model, self.plugin, self.config, self.checkpoint)
        self.plan = self._size()
        text_config = self.checkpoint.hf_config.get_text_config()
        hidden_size = int(text_config.hidden_size)
        self.inputs = InputProcessor(self.config, self.checkpoint, self.plugin, self.plan.max_model_len, hidden_size)
        self.pool = PagePool(self.plan.num_pages, self.plan.page_size)
        self.pages = allocate_pages(self.model, self.plan.num_pages, self.plan.page_size, self.dtype, self.device)
        restarts = [r.restart_length for r in rotary_embeddings(self.model) if r.restart_length is not None]
        self._restart_len = min(restarts, default=None)
        holder = StepHolder()
        bind(self.model, self.pages, holder)
        builder = StepBuilder(self.config.max_num_seqs, self.plan.max_model_len, self.plan.page_size, self.device)
        self.runner = Runner(self.model, builder, holder, hidden_size, self.plugin.describe(), self.dtype, self.device)
        self.scheduler = Scheduler(
            self.pool, self.config.max_num_seqs, self.config.max_num_batched_tokens, self.config.max_num_batched_tokens
        )
        self.eos_token_ids = self._eos_token_ids()
        self.dead: EngineError | None = None
        self._lock = threading.RLock()
        self._requests: dict[str, Request] = {}

    # ---- the life of a request --------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ContextLengthError: It could never fit the page pool.
            EngineDeadError: The engine has stopped.
        """
        with self._lock:
            self._check_alive()
            needed = self.pool.pages_for(min(len(request.token_ids) + request.max_tokens, self.plan.max_model_len))
            if needed > self.pool.num_pages:
                raise ContextLengthError(
                    f"{len(request.token_ids)} prompt tokens and {request.max_tokens} to generate need {needed} pages, but the "
                    f"pool has {self.pool.num_pages}; ask for fewer tokens or raise kv_cache_bytes",
                    param="max_tokens",
                )
            request.metrics.arrival_time = time.monotonic()
            self._requests[request.request_id] = request
            self.scheduler.add(request)

    def abort(self, request_ids: Iterable[str]) -> None:
        """End requests wherever they are; their pages are free at once. Unknown and finished ids are nothing to do."""
        with self._lock:
            for request_id in request_ids:
                request = self._requests.get(request_id)
                if request is not None:
                    request.finish_reason = "abort"
                    self._finish(request)

    def step(self) -> list[Request]:
        """Compute one step; returns the requests that have a new token or have ended."""
        with self._lock:
            self._check_alive()
            plan = self.scheduler.schedule()
            result = self._run(plan)
            sampled = sample(result.logits, result.requests) if result.logits is not None else None
            return self._process(result, sampled)

    def _run(self, plan: StepPlan) -> StepResult:
        if not plan and self.scheduler.has_work:
            raise self._die(CapacityError("no sequence can go on: the page pool is too small for any of them"))
        try:
            return self.runner.run(plan)
        except EngineError as e:
            raise self._die(e) from None
        except Exception as e:
            hook = "forward or compute_logits"
            error = PluginRuntimeError(f"{type(e).__name__}: {e}", plugin=self.plugin.describe(), hook=hook)
            raise self._die(error) from e

    def _process(self, result: StepResult, sampled: Sampled | None) -> list[Request]:
        """Book what was computed, append the new tokens, end what is done."""
        now = time.monotonic()
        changed = []
        for request, error in result.failed:
            self._fail(request, error)
            changed.append(request)
        for request in result.broken:
            self._fail_numbers(request)
            changed.append(request)
        for s in result.computed:
            s.request.num_computed = s.start + s.count
            if s.request.encoded:
                self._drop_passed_items(s.request)
        for row, request in enumerate(result.requests):
            assert sampled is not None
            if request.finished:
                continue  # broken, above
            changed.append(request)
            if sampled.bad[row]:
                self._fail_numbers(request)
                continue
            self._append(request, int(sampled.tokens[row]), now)
            if row in sampled.logprobs:
                request.logprobs.append(self._logprobs(request.token_ids[-1], *sampled.logprobs[row]))
        return changed

    def _append(self, request: Request, token: int, now: float) -> None:
        request.token_ids.append(token)
        if request.metrics.first_token_time is None:
            request.metrics.first_token_time = now
        params = request.params
        if token in request.eos_token_ids and not params.ignore_eos:
            request.finish_reason = "stop"
        elif token in params.stop_token_ids:
            request.finish_reason, request.stop_reason = "stop", token
        elif request.output_len >= request.max_tokens:
            request.finish_reason = "length"
        if request.finish_reason is not None:
            self._finish(request)
        elif self._restart_len is not None and request.whole_len <= self._restart_len < len(request.token_ids):
            request.restart()

    def stop(self, request: Request, stop_string: str) -> None:
        """End a request at a stop string that was found in its text."""
        with self._lock:
            request.finish_reason, request.stop_reason = "stop", stop_string
            self._finish(request)

    def _finish(self, request: Request) -> None:
        if not request.finished:
            self.scheduler.finish([request])
        request.metrics.finished_time = time.monotonic()
        self._requests.pop(request.request_id, None)

    def _fail(self, request: Request, error: EngineError) -> None:
        request.finish_reason, request.error = "error", error
        self._finish(request)

    def _fail_numbers(self, request: Request) -> None:
        self._scrub(request)
        self._fail(request, NumericalError(
            f"request {request.request_id}: the model's numbers are NaN or infinite within its first "
            f"{len(request.token_ids)} tokens; other requests are not affected"
        ))  # fmt: skip

    def _drop_passed_items(self, request: Request) -> None:
        for i in list(request.encoded):
            place = request.items[i].placeholder
            if request.num_computed >= place.offset + place.length:
                del request.encoded[i]

    def _scrub(self, request: Request) -> None:
        """Zero the pages of a request whose numbers went wrong: NaN would reach whoever gets them next, through the
        product of a masked weight of zero with NaN."""
        rows = torch.tensor(request.pages, device=self.device)
        for keys, values in self.pages.values():
            keys[rows], values[rows] = 0, 0

    def _logprobs(
        self, token: int, logprob: float, rank: int, ids: list[int], values: list[float]
    ) -> dict[int, Logprob]:
        text = self.inputs.token_text
        out = {i: Logprob(v, n, text(i)) for n, (i, v) in enumerate(zip(ids, values), 1)}
        return out if token in out else {token: Logprob(logprob, rank, text(token)), **out}

    # ---- start and end ----------------------------------------------------------------------------------------------

    def _refuse_what_it_cannot(self) -> None:
        record, tasks = self.plugin.architecture, self.capabilities.tasks
        if record.kind == "component":
            raise InvalidConfigError(
                f"{record.name} ({self.plugin.describe()}) is a component that other models are built from, not a model",
                param="model",
            )
        if "generate" not in tasks:
            raise InvalidConfigError(
                f"{record.name} ({self.plugin.describe()}) does not generate text; it offers: {', '.join(tasks)}",
                param="model",
            )

    def _size(self) -> EnginePlan:
        """How long sequences may be and how many pages there are: arithmetic, from shapes and free memory."""
        per_token = sum(s.bytes_per_token(self.dtype) for s in page_shapes(self.model).values())
        trained = getattr(self.checkpoint.hf_config.get_text_config(), "max_position_embeddings", None)
        length = self.config.max_model_len or int(trained or 2048)
        size, page_bytes = self.config.block_size, max(1, per_token * self.config.block_size)
        pages_per_seq = -(-length // size)
        if self.config.kv_cache_bytes is not None:
            num_pages = self.config.kv_cache_bytes // page_bytes
        else:
            share = int(available_bytes(self.device) * CPU_CACHE_SHARE) // page_bytes
            num_pages = min(pages_per_seq * self.config.max_num_seqs, share)
        if num_pages < 1 or (self.config.max_model_len is not None and num_pages < pages_per_seq):
            raise InvalidConfigError(
                f"the page pool has room for {num_pages * size} tokens, but one sequence of max_model_len={length} needs "
                f"{pages_per_seq * size} ({per_token} bytes a token); raise kv_cache_bytes or lower max_model_len",
                param="kv_cache_bytes",
            )
        return EnginePlan(
            architecture=self.plugin.architecture.name,
            plugin=self.plugin.describe(),
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            max_model_len=min(length, num_pages * size),
            num_pages=num_pages,
            page_size=size,
            bytes_per_token=per_token,
        )

    def _eos_token_ids(self) -> frozenset[int]:
        """The model's end tokens: its generation config's, else its config's, else its tokenizer's."""
        text_config = self.checkpoint.hf_config.get_text_config()
        for found in (
            self.checkpoint.generation_defaults().get("eos_token_id"),
            getattr(self.checkpoint.hf_config, "eos_token_id", None),
            getattr(text_config, "eos_token_id", None),
            self.inputs.tokenizer.eos_token_id,
        ):
            if found is not None:
                return frozenset([found] if isinstance(found, int) else found)
        return frozenset()

    def _check_alive(self) -> None:
        if self.dead is not None:
            raise EngineDeadError(f"the engine has stopped: {self.dead.message}") from self.dead

    def _die(self, error: EngineError) -> EngineError:
        """End every request with the cause: what they share is broken."""
        self.dead = error
        for request in list(self._requests.values()):
            self._fail(request, error)
        return error

    def close(self) -> None:
        """Free the model and the pages. The engine cannot be used afterwards."""
        with self._lock:
            if self.dead is None:
                self._die(EngineDeadError("it was closed"))
            unbind(self.model)
            self.pages.clear()

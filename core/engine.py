"""The engine: add requests, call `step` until there is nothing left to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace

import torch

from sdk._lazy import collector_paused

from .bind import (
    allocate_pages,
    allocate_slots,
    allocate_states,
    bind,
    cross_attention_layers,
    rotary_embeddings,
    state_layers,
    unbind,
)
from .blueprint import Blueprint
from .cache.media import EncoderCache
from .cache.pages import PagePool
from .cache.states import EncoderStates, StatePool
from .encoding import MediaEncoder
from .errors import (
    CapacityError,
    ContextLengthError,
    EngineDeadError,
    EngineError,
    InvalidConfigError,
    NumericalError,
    PluginContractError,
    PluginRuntimeError,
)
from .inputs import InputProcessor
from .loader import fill_model, materialize
from .logits.logprobs import TokenLogprobs
from .logits.rules import RuleMaker
from .outputs import Logprob
from .plan import EnginePlan, announce, make_plan, refusal
from .pooling.head import PoolingHead
from .pooling.tasks import pools
from .process import large_blocks_apart, prepare_process, return_free_memory
from .profile import measure_step, media_plans
from .request import Request
from .runner import Runner, StepResult
from .sampler import Sampled, sample
from .scheduler import Scheduler, StepPlan
from .step import StepBuilder, StepHolder


class Engine:
    """One model, loaded and ready.

    Args:
        model: Folder, hub id, or `demo/…`.
        options: See `EngineConfig`.
    """

    @collector_paused()
    def __init__(self, model: str, options: dict[str, object]) -> None:
        prepare_process()
        found = Blueprint.of(model, options)
        self.config, self.checkpoint, self.model = found.config, found.checkpoint, found.model
        self.plugin, self.capabilities = found.plugin, found.capabilities
        self.dtype, self.device = found.dtype, found.device
        self.inputs = InputProcessor(found)
        self.plan = self._load(found)
        self.inputs.keep_to(self.plan.max_model_len, {m.modality: m.item_tokens for m in self.plan.media})
        self.pool = PagePool(self.plan.num_pages, self.plan.page_size)
        self.pages = allocate_pages(self.model, self.plan.num_pages, self.plan.page_size, self.dtype, self.device)
        restarts = [r.restart_length for r in rotary_embeddings(self.model) if r.restart_length is not None]
        self._restart_len = min(restarts, default=None)
        holder = StepHolder()
        self.inputs.cross_attention = [layer.num_heads for layer in cross_attention_layers(self.model).values()]
        planned = self.plan.states
        self.states = self._allocate_states(self.plan, planned.count) if planned is not None else None
        state_pool = StatePool(planned.count, planned.rows) if planned is not None else None
        self.slots = allocate_slots(self.model, self.plan.max_num_seqs, self.dtype, self.device)
        bind(self.model, self.pages, holder, self.slots, self.states)
        return_free_memory()  # that of small parts of what loading has freed
        builder = self._step_builder(self.plan)
        encoder_cache = EncoderCache(self.config.encoder_cache_bytes)
        plugin = self.plugin.describe()
        encoder = MediaEncoder(
            self.model, encoder_cache, self.states, found.hidden_size, plugin, self.dtype, self.device
        )
        self.runner = Runner(
            self.model,
            builder,
            holder,
            encoder,
            plugin,
            self.device,
            self._head(),
            recording=not self.config.enforce_eager,
        )
        self.scheduler = Scheduler(
            self.pool,
            self.plan.max_num_seqs,
            self.plan.step_tokens,
            self.config.max_num_batched_tokens,
            encoder_cache,
            state_pool,
            prefix_caching=self._prefix_caching(),
            chunking=self.capabilities.chunked_prefill,
        )
        self.eos_token_ids = self._eos_token_ids()
        self.rules = RuleMaker(self.inputs.tokenizer, self.inputs.vocab_size, self.eos_token_ids)
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
            raise self.die(CapacityError("no sequence can go on: the page pool is too small for any of them"))
        try:
            return self.runner.run(plan)
        except EngineError as e:
            raise self.die(e) from None
        except Exception as e:
            hook = "forward or compute_logits"
            error = PluginRuntimeError(f"{type(e).__name__}: {e}", plugin=self.plugin.describe(), hook=hook)
            raise self.die(error) from e

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
        bad = {r.request_id for r, b in zip(result.requests, sampled.bad) if b} if sampled and sampled.bad.any() else ()
        for s in result.computed:
            if s.request.finished or s.request.request_id in bad:
                continue  # what it computed is not to be found by others
            self.scheduler.computed(s)
            if s.request.encoded:
                self._drop_passed_items(s.request)
        for request, vector in result.pooled:
            request.pooled, request.finish_reason = vector, "stop"
            self._finish(request)
            changed.append(request)
        for request, found in result.prompt_logprobs:
            after = request.token_ids[len(request.prompt_logprobs) + 1 :]
            request.prompt_logprobs += [self._logprobs(t, p) for t, p in zip(after, found)]
        tokens = sampled.tokens.tolist() if sampled is not None else []
        for row, (request, token) in enumerate(zip(result.requests, tokens)):
            assert sampled is not None
            if request.finished:
                continue  # broken, above
            changed.append(request)
            if request.request_id in bad:
                self._fail_numbers(request)
                continue
            if row in sampled.failed:
                self._fail(request, sampled.failed[row])
                continue
            self._append(request, token, now)
            if row in sampled.logprobs:
                request.logprobs.append(self._logprobs(request.token_ids[-1], sampled.logprobs[row]))
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
        own = [p for p in request.pages if not self.pool.is_published(p)]  # the others were right when they were filled
        rows = torch.tensor(own, dtype=torch.long, device=self.device)
        for keys, values in self.pages.values():
            keys[rows], values[rows] = 0, 0
        pool = self.scheduler.states
        if self.states is not None and pool is not None and not pool.pool.is_published(request.state):
            self.states.scrub(request.state)

    def _logprobs(self, token: int, found: TokenLogprobs) -> dict[int, Logprob]:
        text = self.inputs.token_text
        out = {i: Logprob(v, n, text(i)) for n, (i, v) in enumerate(zip(found.ids, found.logprobs), 1)}
        return out if token in out else {token: Logprob(found.logprob, found.rank, text(token)), **out}

    # ---- start and end ----------------------------------------------------------------------------------------------

    @large_blocks_apart()
    def _load(self, found: Blueprint) -> EnginePlan:
        """Plan the memory, and read the weights where the plan holds. A GPU's plan is made anew from a profile run."""
        media = media_plans(self.inputs.mm_processor, self.config, found.length)
        plan = make_plan(found, media)
        self._refuse(plan, found)
        if cross_attention_layers(self.model) and plan.states is None:
            raise PluginContractError(
                f"{plan.plugin}: {plan.architecture} has cross-attention, so its processor must name the encoder_modality, "
                "and its get_mm_max_tokens_per_item how many states an item has at most",
                plugin=plan.plugin,
            )
        materialize(self.model, self.dtype, self.device)
        fill_model(self.model, self.plugin, self.config, self.checkpoint, found.left_out, found.quantized)
        if self.device.type != "cpu":
            measured = replace(plan.memory, activations=self._measured(plan, found.hidden_size), measured=True)
            plan = make_plan(found, media, measured)
            self._refuse(plan, found)
        announce(plan, quiet=self.config.disable_progress)
        return plan

    def _refuse(self, plan: EnginePlan, found: Blueprint) -> None:
        error = refusal(plan, found)
        if error is not None:
            raise error

    def _measured(self, plan: EnginePlan, hidden_size: int) -> int:
        """Bytes of activations of the largest step, over a pool that has just room for it."""
        sequences = min(plan.max_num_seqs, plan.step_tokens)
        pool = PagePool(-(-plan.step_tokens // plan.page_size) + sequences, plan.page_size)
        pages = allocate_pages(self.model, pool.num_pages, plan.page_size, self.dtype, self.device)
        states = self._allocate_states(plan, plan.items_per_step) if plan.states is not None else None
        slots = allocate_slots(self.model, plan.max_num_seqs, self.dtype, self.device)
        holder = StepHolder()
        bind(self.model, pages, holder, slots, states)
        builder = self._step_builder(plan)
        name, cache = self.plugin.describe(), EncoderCache(0)
        filler = next(i for i in range(self.inputs.vocab_size) if i not in self.inputs.reserved)
        encoder = MediaEncoder(self.model, cache, states, hidden_size, name, self.dtype, self.device)
        runner = Runner(self.model, builder, holder, encoder, name, self.device, self._head())
        try:
            return measure_step(runner, pool, self.inputs.mm_processor, plan, filler=filler)
        finally:
            unbind(self.model)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _head(self) -> PoolingHead | None:
        """What pools, in an engine for that."""
        if not pools(self.capabilities.tasks):
            return None
        return PoolingHead(self.model, self.capabilities, self.plugin.describe(), self.device)

    def _step_builder(self, plan: EnginePlan) -> StepBuilder:
        return StepBuilder(plan.max_num_seqs, plan.max_model_len, plan.page_size, self.device, plan.step_tokens)

    def _allocate_states(self, plan: EnginePlan, count: int) -> EncoderStates:
        """Memory for so many states; the plan says how large one is."""
        assert plan.states is not None
        return allocate_states(self.model, count, plan.states.rows, self.dtype, self.device)

    def _prefix_caching(self) -> bool:
        """Whether equal beginnings share pages: as asked, or as the model can."""
        # Where a beginning's keys depend on how long the whole is, equal beginnings have different pages.
        by_length = any(rotary.depends_on_length for rotary in rotary_embeddings(self.model))
        # Pages say nothing of what state layers keep of the tokens in them.
        kept = by_length or bool(state_layers(self.model))
        asked, can = self.config.enable_prefix_caching, self.capabilities.prefix_caching and not kept
        if asked and not can:
            raise InvalidConfigError(
                f"{self.plugin.architecture.name} ({self.plugin.describe()}) cannot share the pages of equal prefixes; "
                "leave enable_prefix_caching out",
                param="enable_prefix_caching",
            )
        return can if asked is None else asked

    def reset_caches(self) -> None:
        """Forget what earlier requests left: pages, embeddings, processed media. Running requests are not touched."""
        with self._lock:
            self.pool.forget()
            self.scheduler.encoder_cache.clear()
            if self.scheduler.states is not None:
                self.scheduler.states.pool.forget()
            self.inputs.memory.clear()

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

    def stopped(self) -> EngineDeadError:
        """What to tell who needs the engine after it has stopped; a new error for each, since each raises it."""
        assert self.dead is not None
        error = EngineDeadError(f"the engine has stopped: {self.dead.message}")
        error.__cause__ = self.dead
        return error

    def _check_alive(self) -> None:
        if self.dead is not None:
            raise self.stopped()

    def die(self, error: EngineError) -> EngineError:
        """End every request with the cause: what they share is broken."""
        with self._lock:
            self.dead = error
            for request in list(self._requests.values()):
                self._fail(request, error)
        return error

    def close(self) -> None:
        """Free the model and the pages. The engine cannot be used afterwards."""
        with self._lock:
            if self.dead is None:
                self.die(EngineDeadError("it was closed"))
            self.rules.close()
            unbind(self.model)
            self.runner.recorded = None  # which calls what was bound
            self.pages.clear()
            self.slots.clear()
            self.states = None

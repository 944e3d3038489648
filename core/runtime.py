"""`CoreRuntime`: this engine, as the SDK's conformance kit drives it (entry point group `engine.v1.runtime`)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdk.context import ModelContext
from sdk.multimodal.processor import ProcessedPrompt
from sdk.pooling import PoolingTask
from sdk.quantization import QuantizationConfig
from sdk.registry import IN_PROCESS
from sdk.spec import Role
from sdk.testing.runtime import DEFAULT, Completion, Metadata, Prompt, Settings

from .bind import page_shapes
from .checkpoint import Checkpoint
from .config import EngineConfig
from .errors import PluginMissingError
from .llm import LLM
from .loader import build_module, make_resolver
from .outputs import RequestOutput, RequestOutputKind
from .plugins import Catalog, Claim, ResolvedPlugin
from .plugins.requirements import normalised
from .pooling import PoolingParams
from .pooling.calls import PoolingCall
from .pooling.tasks import pools
from .registry import QUANTIZATION
from .request import Request
from .sampling import SamplingParams
from .server_process import ServerProcess

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "disable_progress": True}
"""How the kit opens every checkpoint: exactly."""
CACHING: dict[str, Any] = {"enable_prefix_caching": None}
"""Whatever is kept by default, of a model that allows it."""
NO_CACHING: dict[str, Any] = {
    "enable_prefix_caching": False,
    "encoder_cache_bytes": 0,
    "processing_cache_bytes": 0,
}

EVERY = 40
"""How many outputs pass between two prompts that interrupt the others."""
SERVED_AS = "tiny"
SERVED_WITH = ("--dtype", "float32", "--device", "cpu", "--block-size", "16", "--log-level", "warning")
"""How the kit has a checkpoint served."""


class CoreRuntime:
    """Finds plugins in the catalog and runs models in `core.LLM`.

    Args:
        pins: Architecture → distribution, where two claim one.
    """

    def __init__(self, pins: Mapping[str, str] | None = None) -> None:
        self.pins = dict(pins or {})

    def architectures(self, name: str) -> list[str]:
        """See `sdk.testing.Runtime`."""
        claims = [claim for claim in Catalog.installed().claims() if claim.kind == "architecture"]
        known = {normalised(name), f"engine-plugin-{normalised(name)}"}
        of_distribution = sorted({claim.name for claim in claims if claim.key in known and not claim.is_fallback})
        if of_distribution:
            return of_distribution
        decision = Catalog.installed().decide(name, pins=self.pins)
        if isinstance(decision.error, PluginMissingError):
            if self.schemes(name):
                return []
            raise decision.error
        return [name]

    def schemes(self, name: str) -> list[str]:
        """See `sdk.testing.Runtime`."""
        known = {normalised(name), f"engine-plugin-{normalised(name)}"}
        of_distribution = sorted({claim.name for claim in QUANTIZATION.claims() if claim.key in known})
        return of_distribution or [found for found in QUANTIZATION if found == name]

    def scheme(self, name: str) -> type[QuantizationConfig]:
        """See `sdk.testing.Runtime`."""
        found: type[QuantizationConfig] = QUANTIZATION.resolve(name, self.pins)
        return found

    def scheme_plugin(self, name: str) -> str:
        """See `sdk.testing.Runtime`."""
        brought = [claim.plugin for claim in QUANTIZATION.claims() if claim.name == name and claim.state == "ready"]
        return brought[0] if len(brought) == 1 else IN_PROCESS

    def metadata(self, architecture: str) -> Metadata | None:
        """See `sdk.testing.Runtime`."""
        chosen = Catalog.installed().decide(architecture, pins=self.pins).chosen or self._hidden(architecture)
        if chosen is None:
            return None
        siblings = [
            claim for claim in Catalog.installed().claims() if (claim.key, claim.module) == (chosen.key, chosen.module)
        ]
        return Metadata(
            distribution=chosen.distribution,
            version=chosen.version,
            module=chosen.module,
            architectures=frozenset(claim.name for claim in siblings if claim.kind == "architecture"),
            model_types=frozenset(claim.name for claim in siblings if claim.kind == "model_type"),
        )

    def _hidden(self, architecture: str) -> Claim | None:
        """The claim of a distribution where a part of the architecture was registered in this process as well."""
        claims = [c for c in Catalog.installed().claims() if c.kind == "architecture" and c.name == architecture]
        return claims[0] if len(claims) == 1 else None

    def resolve(self, architecture: str) -> ResolvedPlugin:
        """See `sdk.testing.Runtime`."""
        return Catalog.installed().resolve(architecture, pins=self.pins)

    def resolver(self) -> Callable[[Any, Role], tuple[Any, ModelContext]]:
        """See `sdk.testing.Runtime`."""
        return make_resolver(self.pins)

    def build(self, folder: Path) -> nn.Module:
        """See `sdk.testing.Runtime`."""
        checkpoint = Checkpoint(folder, {})
        config = EngineConfig.make(str(folder), {"plugins": self.pins})
        return build_module(self.resolve(checkpoint.architecture), config, checkpoint, torch.float32)

    def open(self, folder: Path, settings: Settings = DEFAULT) -> OpenModel:
        """See `sdk.testing.Runtime`."""
        options = {
            **OPTIONS,
            "plugins": self.pins,
            "block_size": settings.page_size,
            "max_num_batched_tokens": settings.step_tokens,
            "max_num_seqs": settings.step_sequences,
            "quantization": settings.quantization,
            **(CACHING if settings.caching else NO_CACHING),
        }
        if settings.pool_tokens is not None:
            shapes = page_shapes(self.build(folder)).values()
            per_token = sum(shape.bytes_per_token(torch.float32) for shape in shapes)
            options["kv_cache_bytes"] = settings.pool_tokens * per_token
        return OpenModel(LLM(str(folder), **options), interrupted=settings.interrupted)

    def serve(self, folder: Path) -> ServerProcess:
        """See `sdk.testing.Runtime`."""
        pins = [word for pin in self.pins.items() for word in ("--plugin", "=".join(pin))]
        return ServerProcess(str(folder), SERVED_AS, [*SERVED_WITH, *pins])


class OpenModel:
    """A checkpoint in an engine.

    Args:
        llm: The engine.
        interrupted: See `sdk.testing.Settings`.
    """

    def __init__(self, llm: LLM, *, interrupted: bool = False) -> None:
        self.llm, self.interrupted = llm, interrupted

    def process(self, prompt: Prompt) -> ProcessedPrompt:
        """See `sdk.testing.runtime.OpenModel`."""
        inputs = self.llm.engine.inputs
        if pools(inputs.tasks):
            return inputs.process_pooled(prompt, PoolingParams(inputs.tasks[0])).prompt  # type: ignore[arg-type]  # one of them
        return inputs.process(prompt).prompt

    def pool(self, prompts: Sequence[Prompt], task: PoolingTask) -> list[Tensor]:
        """See `sdk.testing.runtime.OpenModel`."""
        made = self.llm.pool(PoolingCall(list(prompts), PoolingParams(task), list), use_progress=False)
        return [torch.from_numpy(output.pooled) for output in made]

    def generate(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        """See `sdk.testing.runtime.OpenModel`."""
        params = _greedy(max_tokens)
        if self.interrupted:
            return self._interrupted(list(prompts), params)
        made = self.llm.generate(list(prompts), params, use_progress=False)
        return [_completion(output) for output in made]

    @property
    def has_chat_template(self) -> bool:
        """See `sdk.testing.runtime.OpenModel`."""
        return self.llm.engine.inputs.chat.template is not None

    def chat(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> Completion:
        """See `sdk.testing.runtime.OpenModel`."""
        return _completion(self.llm.chat(list(messages), _greedy(max_tokens), use_progress=False)[0])

    def transcribe(self, clip: bytes) -> str:
        """See `sdk.testing.runtime.OpenModel`."""
        return str(self.llm.transcribe(clip, use_progress=False).text)

    def _interrupted(self, prompts: list[Prompt], params: SamplingParams) -> list[Completion]:
        """The same, while every few outputs a prompt that goes before all others is answered."""
        made: dict[str, RequestOutput] = {}
        whole = replace(params, output_kind=RequestOutputKind.CUMULATIVE)
        urgent = SamplingParams(temperature=0.0, max_tokens=1)
        for number, output in enumerate(self.llm.generate(prompts, whole, stream=True)):
            made[output.request_id] = output
            if number % EVERY == 0:
                self.llm.generate(prompts[0], urgent, priority=-1, use_progress=False)
        return [_completion(made[name]) for name in sorted(made, key=lambda name: int(name.partition("-")[0]))]

    def logits(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """See `sdk.testing.runtime.OpenModel`. The prompts are scheduled, paged and batched as any other."""
        engine = self.llm.engine
        requests = [_request(self.process(prompt)) for prompt in prompts]
        rows: dict[str, list[Tensor]] = {request.request_id: [] for request in requests}
        try:
            for request in requests:
                engine.add(request)
            while any(request.num_computed < request.prompt_len for request in requests):
                result = engine.runner.run(engine.scheduler.schedule(), every_row=True)
                for _, error in result.failed:
                    raise error
                assert result.logits is not None
                parts = torch.split(result.logits, [scheduled.count for scheduled in result.computed])
                for scheduled, part in zip(result.computed, parts):
                    rows[scheduled.request.request_id].append(part.float().cpu())
                    scheduled.request.num_computed = scheduled.start + scheduled.count
        finally:
            engine.abort(rows)
        return [torch.cat(rows[request.request_id]) for request in requests]

    def close(self) -> None:
        """See `sdk.testing.runtime.OpenModel`."""
        self.llm.close()


def _greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, logprobs=0)


def _completion(output: RequestOutput) -> Completion:
    tokens = tuple(output.outputs[0].token_ids)
    logprobs = output.outputs[0].logprobs or ()
    return Completion(
        token_ids=tokens,
        logprobs=tuple(found[token].logprob for token, found in zip(tokens, logprobs)),
        cached_tokens=output.num_cached_tokens,
        preemptions=output.metrics.preemptions,
        text=output.outputs[0].text,
    )


def _request(prompt: ProcessedPrompt) -> Request:
    return Request(
        request_id=uuid.uuid4().hex,
        token_ids=list(prompt.prompt_token_ids),
        prompt_len=len(prompt.prompt_token_ids),
        params=SamplingParams(temperature=0.0),
        max_tokens=1,
        eos_token_ids=frozenset(),
        seed=0,
        items=prompt.items,
        encoder_item=prompt.encoder_item,
        reads_cache=False,  # every row is asked for
    )

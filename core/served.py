"""What `AsyncLLM` asks of an engine and of who steps it, in whatever process these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sdk.spec import Capabilities

    from .checkpoint import Checkpoint
    from .config import EngineConfig
    from .engine_thread import Listener
    from .errors import EngineError
    from .inputs import InputProcessor
    from .logits.rules import LogitsRules
    from .plan import EnginePlan
    from .plugins import ResolvedPlugin
    from .request import Request
    from .sampling import SamplingParams


class Rules(Protocol):
    """Checks what requests ask of their logits."""

    def make(self, params: SamplingParams) -> LogitsRules | None: ...


class SpeechEngine(Protocol):
    """What transcription must know of an engine."""

    @property
    def plugin(self) -> ResolvedPlugin: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def inputs(self) -> InputProcessor: ...
    @property
    def plan(self) -> EnginePlan: ...
    @property
    def eos_token_ids(self) -> frozenset[int]: ...


class ServedEngine(SpeechEngine, Protocol):
    """An engine, as who serves with it must know it. While it is not ready, all but `dead` and `stopped` may raise what
    `stopped` returns."""

    @property
    def config(self) -> EngineConfig: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def dead(self) -> EngineError | None: ...
    def stopped(self) -> EngineError: ...


class Stepper(Protocol):
    """Who steps an engine, and is sent requests."""

    @property
    def engine(self) -> ServedEngine: ...
    def submit(self, listener: Listener) -> None: ...
    def abort(self, requests: Sequence[Request]) -> None: ...
    def stop(self, request: Request, stop_string: str) -> None: ...
    def close(self) -> None: ...


__all__ = ["Rules", "ServedEngine", "Stepper"]

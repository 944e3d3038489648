"""An engine that runs in another process, as this one knows it: its plugin, its plan, and what processes its prompts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from sdk.spec import Capabilities

from ..bind import cross_attention_layers
from ..blueprint import Blueprint
from ..checkpoint import Checkpoint
from ..config import EngineConfig
from ..errors import CapacityError, EngineDeadError, EngineError
from ..inputs import InputProcessor
from ..logits.rules import LogitsRules, check_token_ids
from ..plan import EnginePlan
from ..plugins import Catalog, ResolvedPlugin
from ..sampling import SamplingParams
from . import wire
from .input_pool import InputPool
from .remote_inputs import RemoteInputs

T = TypeVar("T")
_FINDING = threading.Lock()
"""One model at a time: what an import of a plugin changes in the process is put back, and two at once would undo each other's."""


class _Rules:
    """Checks what a request asks of its logits as far as the model need not be asked; the engine makes the rules."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def make(self, params: SamplingParams) -> LogitsRules | None:
        check_token_ids(params, self.vocab_size)
        return None


class _Found(NamedTuple):
    """What is known without the engine."""

    config: EngineConfig
    plugin: ResolvedPlugin
    capabilities: Capabilities
    checkpoint: Checkpoint
    inputs: InputProcessor
    rules: _Rules


class RemoteEngine:
    """See `core.served.ServedEngine`. Whoever watches over the process writes to it; others read.

    Args:
        input_processes: How many process prompts.
        input_timeout: Seconds that a prompt may take there.
    """

    def __init__(self, input_processes: int, input_timeout: float) -> None:
        self._input_processes, self._input_timeout = input_processes, input_timeout
        self.pool: InputPool | None = None
        self.dead: EngineError | None = CapacityError("the model is being loaded; try again shortly", code="loading")
        self._found: _Found | None = None
        self._plan: EnginePlan | None = None
        self._eos_token_ids: frozenset[int] = frozenset()

    # ---- for who watches over the process ---------------------------------------------------------------------------

    def find(self, model: str, options: Mapping[str, Any]) -> wire.Setup:
        """Find a model and its plugins, and start what processes its prompts.

        Returns:
            What the process needs to run exactly these.

        Raises:
            StartupError: The model cannot be run as asked.
        """
        with _FINDING:
            return self._find(model, options)

    def _find(self, model: str, options: Mapping[str, Any]) -> wire.Setup:
        with Catalog.noting() as plugins:
            blueprint = Blueprint.of(model, options)
        records = [plugin.record() for plugin in plugins.values()]
        asked = EngineConfig.make(model, options).model_dump(mode="json", exclude_unset=True, exclude={"model"})
        asked["disable_progress"] = True  # it is shown here
        config, checkpoint, plugin = blueprint.config, blueprint.checkpoint, blueprint.plugin
        setup = wire.Setup(wire.FORMAT, str(checkpoint.folder), asked, records, 0.0)
        self.pool = InputPool(setup, self._input_processes, self._input_timeout)
        inputs = RemoteInputs(blueprint, self.pool)
        inputs.cross_attention = [layer.num_heads for layer in cross_attention_layers(blueprint.model).values()]
        rules = _Rules(inputs.vocab_size)
        self._found = _Found(config, plugin, blueprint.capabilities, checkpoint, inputs, rules)
        return setup

    def loaded(self, message: wire.Loaded) -> None:
        """The process has loaded the model."""
        self._plan = plan = msgspec.convert(message.plan, EnginePlan)
        self._eos_token_ids = frozenset(message.eos_token_ids)
        self.inputs.keep_to(plan.max_model_len, {m.modality: m.item_tokens for m in plan.media})
        self.dead = None

    def lost(self, cause: EngineError, *, for_good: bool) -> None:
        """The process has ended; another is started, unless it is `for_good`."""
        dead = EngineDeadError(cause.message if for_good else f"{cause.message}; it is being started again")
        dead.__cause__ = cause
        self.dead = dead

    def close(self) -> None:
        """There will be no process any more."""
        if self.pool is not None:
            self.pool.close()

    # ---- for everybody ----------------------------------------------------------------------------------------------

    def stopped(self) -> EngineError:
        """What to tell who needs the engine while it cannot serve; a new error for each, since each raises it."""
        dead = self.dead
        if isinstance(dead, CapacityError):
            return CapacityError(dead.message, code=dead.code)
        error = EngineDeadError(f"the engine has stopped: {dead.message if dead is not None else 'it was lost'}")
        error.__cause__ = dead.__cause__ if dead is not None else None
        return error

    def _known(self, value: T | None) -> T:
        if value is None:
            raise self.stopped()
        return value

    @property
    def config(self) -> EngineConfig:
        """Its options."""
        return self._known(self._found).config

    @property
    def plugin(self) -> ResolvedPlugin:
        """Who runs the model."""
        return self._known(self._found).plugin

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        return self._known(self._found).capabilities

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's folder."""
        return self._known(self._found).checkpoint

    @property
    def inputs(self) -> InputProcessor:
        """Processes prompts, in this process."""
        return self._known(self._found).inputs

    @property
    def rules(self) -> _Rules:
        """See `_Rules`."""
        return self._known(self._found).rules

    @property
    def plan(self) -> EnginePlan:
        """What start-up decided."""
        return self._known(self._plan)

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The model's end tokens."""
        return self._eos_token_ids

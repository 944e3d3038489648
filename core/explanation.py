"""`explain`: what a model would be on this machine, told from its configs. No weight is read, none is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .blueprint import Blueprint
from .errors import EngineError
from .inputs import InputProcessor
from .plan import EnginePlan, MediaPlan, make_plan, refusal
from .plugins.options import make_options
from .profile import media_plans


@dataclass(frozen=True)
class Explanation:
    """What `explain` found.

    Attributes:
        model: As it was asked for.
        trained_length: Longest sequence that the model was trained for, where its config says.
        capabilities: What the plugin says that the model can do.
        plan: What start-up would decide; None where it would not come so far.
        refused: Why it would not start, as a message for people; None: it would.
        refused_code: The error's code.
        notes: What could not be told, and why.
        plugin_options: The plugin's own options, validated; empty where it has none.
    """

    model: str
    trained_length: int | None = None
    capabilities: dict[str, Any] | None = None
    plan: EnginePlan | None = None
    refused: str | None = None
    refused_code: str | None = None
    notes: tuple[str, ...] = ()
    plugin_options: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {
            "model": self.model,
            "starts": self.refused is None,
            "refused": None if self.refused is None else {"code": self.refused_code, "message": self.refused},
            "trained_length": self.trained_length,
            "capabilities": self.capabilities,
            "plan": None if self.plan is None else self.plan.as_json(),
            "notes": list(self.notes),
            "plugin_options": dict(self.plugin_options),
        }

    def lines(self) -> list[tuple[str, str]]:
        """The explanation for people: a few names with what they come to."""
        lines = [] if self.plan is None else self.plan.lines()
        if self.plan is not None:
            trained = "not said" if self.trained_length is None else f"{self.trained_length}"
            lines.insert(1, ("context", f"{self.plan.max_model_len} tokens (trained for: {trained})"))
        if self.capabilities is not None:
            lines += _abilities(self.capabilities)
        if self.plugin_options:
            lines.append(("options", ", ".join(f"{name}={value!r}" for name, value in self.plugin_options.items())))
        lines += [("note", note) for note in self.notes]
        lines.append(("starts", "yes") if self.refused is None else ("refused", self.refused))
        return lines


def _abilities(capabilities: dict[str, Any]) -> list[tuple[str, str]]:
    takes = ", ".join(["text", *capabilities["modalities"]])
    switches = {name.replace("_", " "): value for name, value in capabilities.items() if isinstance(value, bool)}
    can = ", ".join(name for name, value in switches.items() if value) or "none of the optional features"
    cannot = ", ".join(name for name, value in switches.items() if not value)
    lines = [("takes", takes), ("tasks", ", ".join(capabilities["tasks"])), ("can", can)]
    return [*lines, ("cannot", cannot)] if cannot else lines


def explain(model: str, **options: Any) -> Explanation:
    """Tell what a model would be on this machine, without loading it.

    Args:
        model: Folder in HF layout (config.json is enough), hub id, or a shipped demo.
        options: See `EngineConfig`; `LLM` would take the same.

    Returns:
        The plan, and why the model would be refused where it would.
    """
    try:
        blueprint = Blueprint.of(str(model), options, weights=False)
    except EngineError as e:
        return Explanation(str(model), refused=e.message, refused_code=e.code)
    media, notes = _media(blueprint)
    plan = make_plan(blueprint, media)
    error = refusal(plan, blueprint)
    own = make_options(blueprint.plugin, blueprint.config.plugin_options)
    return Explanation(
        model=str(model),
        trained_length=blueprint.trained_length,
        capabilities=blueprint.capabilities.model_dump(mode="json"),
        plan=plan,
        refused=None if error is None else error.message,
        refused_code=None if error is None else error.code,
        notes=notes,
        plugin_options={} if own is None else own.model_dump(mode="json"),
    )


def _media(blueprint: Blueprint) -> tuple[tuple[MediaPlan, ...], tuple[str, ...]]:
    """What is planned for media; the processor's files may be missing beside a bare config.json."""
    modalities = blueprint.capabilities.modalities
    if not modalities:
        return (), ()
    config = blueprint.config
    try:
        inputs = InputProcessor(blueprint)
    except EngineError as e:
        plans = tuple(MediaPlan(m, config.limit_mm_per_prompt.get(m), None) for m in modalities)
        return plans, (f"the tokens of an item are unknown: {e.message}",)
    return media_plans(inputs.mm_processor, config, blueprint.length), ()

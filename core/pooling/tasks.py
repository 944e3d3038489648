"""What a model is used for: to make text, or to pool. An engine does one of the two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sdk.pooling import POOLING_TASKS, supports_pooling
from sdk.spec import Capabilities

from ..errors import InvalidConfigError, InvalidRequestError, PluginContractError
from ..plugins import ResolvedPlugin

DOES = {
    "generate": "generate text",
    "transcription": "transcribe",
    "embed": "make embeddings",
    "classify": "classify",
    "score": "score pairs of texts",
}


def pools(tasks: Iterable[str]) -> bool:
    """Whether an engine with these tasks pools."""
    return any(task in POOLING_TASKS for task in tasks)


def for_task(asked: str | None, capabilities: Capabilities, plugin: ResolvedPlugin, model_class: Any) -> Capabilities:
    """What a model can do in an engine of its own.

    Args:
        asked: The task that the user chose; None: what the plugin says, and text where it says both.
        capabilities: As the plugin says.
        plugin: Who runs it.
        model_class: What it runs.

    Raises:
        InvalidConfigError: The model does not do what was asked for.
        PluginContractError: It is said to pool and does not implement it.
    """
    name, told = plugin.architecture.name, capabilities.tasks
    if pools(told) and not supports_pooling(model_class):
        raise PluginContractError(
            f"{plugin.describe()}: {name} is offered for {', '.join(told)}, so its model must implement SupportsPooling",
            plugin=plugin.describe(),
        )
    pooled = tuple(task for task in told if task in POOLING_TASKS)
    text = tuple(task for task in told if task not in POOLING_TASKS)
    possible = {*told, *(["embed"] if "generate" in told else [])}  # of any text there are hidden states
    if asked is not None and asked not in possible:
        raise InvalidConfigError(
            f"{name} ({plugin.describe()}) does not {DOES[asked]}; task can be: {', '.join(sorted(possible))}",
            param="task",
        )
    if asked not in POOLING_TASKS and (asked is not None or text or not pooled):
        return capabilities.model_copy(update={"tasks": text})
    # A vector needs all rows of its sequence at once: none may lie in an earlier step, or in pages of another's.
    update = {"tasks": pooled or ("embed",), "chunked_prefill": "no", "prefix_caching": False}
    return capabilities.model_copy(update=update)


def require(task: str, tasks: Iterable[str], architecture: str) -> None:
    """Refuse a request for what an engine does not do.

    Raises:
        InvalidRequestError: It names what the engine does.
    """
    offered = list(tasks)
    if task in offered or (task == "generate" and "transcription" in offered):
        return
    hint = "; load it with task='embed' to have vectors of it" if task == "embed" and "generate" in offered else ""
    raise InvalidRequestError(
        f"{architecture} does not {DOES[task]} here; it is for: {', '.join(offered)}{hint}",
        code="unsupported_task",
        param="model",
    )

"""Who says how an architecture transcribes, and what a model is offered for."""

from __future__ import annotations

from collections.abc import Sequence

from sdk.transcription import SupportsTranscription, supports_transcription

from ..errors import PluginContractError
from ..plugins import ResolvedPlugin

Speaking = type[SupportsTranscription]


def speech_class(plugin: ResolvedPlugin) -> Speaking | None:
    """The class that says how an architecture transcribes: the one that its plugin names, or its model's; None: it does not.

    Raises:
        PluginContractError: What the plugin names does not implement `SupportsTranscription`.
    """
    named = plugin.has("transcription")
    found = plugin.load("transcription" if named else "model")
    if isinstance(found, type) and issubclass(found, SupportsTranscription):
        return found
    if named or supports_transcription(found):
        raise PluginContractError(
            f"{plugin.describe()}: transcription of {plugin.architecture.name} is {found!r:.80}, which does not derive from "
            "sdk.SupportsTranscription",
            plugin=plugin.describe(),
        )
    return None


def offered_tasks(plugin: ResolvedPlugin, tasks: Sequence[str]) -> tuple[str, ...]:
    """What a model is offered for, once its class is at hand: transcription where it implements it, and nothing besides
    where it says so."""
    speaking = speech_class(plugin) if plugin.architecture.kind == "model" else None
    if speaking is None:
        return tuple(tasks)
    if speaking.supports_transcription_only:
        return ("transcription",)
    return tuple(dict.fromkeys((*tasks, "transcription")))

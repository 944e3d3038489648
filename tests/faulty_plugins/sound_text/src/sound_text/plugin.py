"""What the engine reads first: the architecture and where its parts are. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        Architecture(
            name="SoundForCausalLM",
            model="sound_text.model:SoundForCausalLM",
            capabilities=Capabilities(attention=("full",)),
            tiny="sound_text.tiny:make",
        )
    ]

"""What the engine reads first: the architecture and where its parts are. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        Architecture(
            name="SoundStateForCausalLM",
            model="sound_state.model:SoundStateForCausalLM",
            capabilities=Capabilities(attention=("full", "convolution"), prefix_caching=False),
            tiny="sound_state.tiny:make",
        )
    ]

"""What the engine reads first: the architecture and where its parts are. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def capabilities(config: ConfigView) -> Capabilities:
    """Pictures and text."""
    return Capabilities(tasks=("generate",), modalities=("image",), attention=("full",))


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        Architecture(
            name="SoundForConditionalGeneration",
            role="vision-language",
            model="sound_vision.model:SoundForConditionalGeneration",
            processor="sound_vision.processing:Processor",
            info="sound_vision.processing:ProcessingInfo",
            dummy_inputs="sound_vision.processing:DummyInputs",
            capabilities="sound_vision.plugin:capabilities",
            tiny="sound_vision.tiny:make",
        )
    ]

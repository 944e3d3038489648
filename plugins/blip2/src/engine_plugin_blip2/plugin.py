"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="Blip2ForConditionalGeneration",
            model="engine_plugin_blip2.model:Blip2ForConditionalGeneration",
            processor="engine_plugin_blip2.processing:Blip2MultiModalProcessor",
            info="engine_plugin_blip2.processing:Blip2ProcessingInfo",
            dummy_inputs="engine_plugin_blip2.processing:Blip2DummyInputsBuilder",
            capabilities=Capabilities(modalities=("image",), attention=("full", "encoder")),
            role="vision-language",
            model_types=("blip-2",),
            tiny="engine_plugin_blip2.tiny:blip2",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2301.12597",
        )
    ]

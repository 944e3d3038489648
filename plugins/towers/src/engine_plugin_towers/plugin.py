"""What the engine reads first: the towers of this plugin. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        Architecture(
            name="CLIPVisionModel",
            kind="component",
            role="vision-encoder",
            model="engine_plugin_towers.clip:CLIPVisionModel",
            model_types=("clip_vision_model",),
            capabilities=Capabilities(tasks=(), modalities=("image",), attention=("encoder",)),
            tiny="engine_plugin_towers.tiny:clip",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2103.00020",
        )
    ]

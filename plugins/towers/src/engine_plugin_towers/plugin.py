"""What the engine reads first: the towers of this plugin. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl


def _tower(name: str, module: str, model_type: str, upstream: str) -> Architecture:
    return Architecture(
        name=name,
        kind="component",
        role="vision-encoder",
        model=f"engine_plugin_towers.{module}:{name}",
        model_types=(model_type,),
        capabilities=Capabilities(tasks=(), modalities=("image",), attention=("encoder",)),
        tiny=f"engine_plugin_towers.tiny:{module}",
        license="Apache-2.0",
        upstream=upstream,
    )


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        _tower("CLIPVisionModel", "clip", "clip_vision_model", "https://arxiv.org/abs/2103.00020"),
        _tower("SiglipVisionModel", "siglip", "siglip_vision_model", "https://arxiv.org/abs/2303.15343"),
        _tower("PixtralVisionModel", "pixtral", "pixtral", "https://arxiv.org/abs/2410.07073"),
        _tower("Idefics2VisionTransformer", "idefics2", "idefics2_vision", "https://arxiv.org/abs/2405.02246"),
    ]

"""What the engine reads first: LLaVA and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def capabilities(config: ConfigView) -> Capabilities:
    """Pictures and text. What its language model attends to, only the plugin of that model knows."""
    return Capabilities(modalities=("image",))


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    package = "engine_plugin_llava"
    return [
        Architecture(
            name="LlavaForConditionalGeneration",
            role="vision-language",
            model=f"{package}.model:LlavaForConditionalGeneration",
            processor=f"{package}.processing:LlavaMultiModalProcessor",
            info=f"{package}.processing:LlavaProcessingInfo",
            dummy_inputs=f"{package}.processing:LlavaDummyInputsBuilder",
            model_types=("llava",),
            capabilities=f"{package}.plugin:capabilities",
            tiny=f"{package}.tiny:llava",
            demo=f"{package}.demo:path",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2310.03744",
        )
    ]

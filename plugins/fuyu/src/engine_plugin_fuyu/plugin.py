"""What the engine reads first: the two architectures and what each can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl

_PACKAGE = "engine_plugin_fuyu"


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        Architecture(
            name="FuyuForCausalLM",
            role="vision-language",
            model=f"{_PACKAGE}.fuyu:FuyuForCausalLM",
            processor=f"{_PACKAGE}.processing:FuyuMultiModalProcessor",
            info=f"{_PACKAGE}.processing:FuyuProcessingInfo",
            dummy_inputs=f"{_PACKAGE}.processing:FuyuDummyInputsBuilder",
            model_types=("fuyu",),
            # Embeddings alone do not tell how many columns of patches a picture has.
            capabilities=Capabilities(modalities=("image",), media_embeds=False),
            tiny=f"{_PACKAGE}.tiny:fuyu",
            demo=f"{_PACKAGE}.demo:path",
            license="Apache-2.0",
            upstream="https://www.adept.ai/blog/fuyu-8b",
        ),
        Architecture(
            name="PersimmonForCausalLM",
            model=f"{_PACKAGE}.persimmon:PersimmonForCausalLM",
            model_types=("persimmon",),
            tiny=f"{_PACKAGE}.tiny:persimmon",
            license="Apache-2.0",
            upstream="https://www.adept.ai/blog/persimmon-8b",
        ),
    ]

"""What the engine reads first: LLaVA, LLaVA-NeXT and what they can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def capabilities(config: ConfigView) -> Capabilities:
    """Pictures and text, and for the rest what the language model can do."""
    text = config.capabilities_of("text_config", "causal-lm", model_type="llama")
    vision = config.get("vision_config")
    # Pixtral's pictures end each line in a token, and embeddings do not say how long a line is.
    any_size = vision is not None and vision.get("model_type") == "pixtral"
    own = {
        "tasks": ("generate",),
        "modalities": ("image",),
        "media_embeds": not any_size,
        "pipeline_parallel": False,
        "lm_only": True,
    }
    return text.model_copy(update=own)


def _llava(name: str, module: str, tiny: str, upstream: str, demo: str | None = None) -> Architecture:
    package = "engine_plugin_llava"
    return Architecture(
        name=name,
        role="vision-language",
        model=f"{package}.{module}:{name}",
        processor=f"{package}.processing:LlavaMultiModalProcessor",
        info=f"{package}.processing:LlavaProcessingInfo",
        dummy_inputs=f"{package}.processing:LlavaDummyInputsBuilder",
        model_types=(tiny,),
        capabilities=f"{package}.plugin:capabilities",
        tiny=f"{package}.tiny:{tiny}",
        demo=demo,
        license="Apache-2.0",
        upstream=upstream,
    )


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    next_paper = "https://arxiv.org/abs/2407.07895"
    demo = "engine_plugin_llava.demo:path"
    return [
        _llava("LlavaForConditionalGeneration", "model", "llava", "https://arxiv.org/abs/2310.03744", demo),
        _llava("LlavaNextForConditionalGeneration", "next_model", "llava_next", next_paper),
    ]

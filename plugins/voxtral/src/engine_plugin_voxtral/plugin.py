"""What the engine reads first: Voxtral and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl

_PACKAGE = "engine_plugin_voxtral"


def capabilities(config: ConfigView) -> Capabilities:
    """Clips and text, and for the rest what the language model can do."""
    text = config.capabilities_of("text_config", "causal-lm", model_type="llama")
    own = {
        "tasks": ("generate", "transcription"),
        "modalities": ("audio",),
        "media_embeds": True,
        "pipeline_parallel": False,
        "lm_only": True,
    }
    return text.model_copy(update=own)


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="VoxtralForConditionalGeneration",
            role="speech-to-text",
            model=f"{_PACKAGE}.model:VoxtralForConditionalGeneration",
            processor=f"{_PACKAGE}.processing:VoxtralMultiModalProcessor",
            info=f"{_PACKAGE}.processing:VoxtralProcessingInfo",
            dummy_inputs=f"{_PACKAGE}.processing:VoxtralDummyInputsBuilder",
            transcription=f"{_PACKAGE}.transcription:VoxtralTranscription",
            tokenizer=f"{_PACKAGE}.tekken:load_tokenizer",
            model_types=("voxtral",),
            capabilities=f"{_PACKAGE}.plugin:capabilities",
            tiny=f"{_PACKAGE}.tiny:voxtral",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2507.13264",
        )
    ]

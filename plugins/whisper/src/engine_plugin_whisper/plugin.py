"""What the engine reads first: Whisper, and its encoder by itself. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl

_PACKAGE = "engine_plugin_whisper"
_UPSTREAM = "https://arxiv.org/abs/2212.04356"


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        Architecture(
            name="WhisperForConditionalGeneration",
            role="speech-to-text",
            model=f"{_PACKAGE}.model:WhisperForConditionalGeneration",
            processor=f"{_PACKAGE}.processing:WhisperMultiModalProcessor",
            info=f"{_PACKAGE}.processing:WhisperProcessingInfo",
            dummy_inputs=f"{_PACKAGE}.processing:WhisperDummyInputsBuilder",
            transcription=f"{_PACKAGE}.transcription:WhisperTranscription",
            model_types=("whisper",),
            capabilities=Capabilities(
                tasks=("generate", "transcription"),
                modalities=("audio",),
                attention=("full", "cross"),
                prompt_embeds=False,
                media_embeds=False,
                lm_only=False,
            ),
            tiny=f"{_PACKAGE}.tiny:whisper",
            demo=f"{_PACKAGE}.demo:path",
            license="Apache-2.0",
            upstream=_UPSTREAM,
        ),
        Architecture(
            name="WhisperEncoder",
            kind="component",
            role="audio-encoder",
            model=f"{_PACKAGE}.encoder:WhisperEncoder",
            # Voxtral's encoder is Whisper's under another name.
            model_types=("whisper", "voxtral_encoder"),
            capabilities=Capabilities(tasks=(), modalities=("audio",), attention=("encoder",)),
            tiny=f"{_PACKAGE}.tiny:encoder",
            license="Apache-2.0",
            upstream=_UPSTREAM,
        ),
    ]

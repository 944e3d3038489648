"""How HF's feature extractor treats clips: one of at most the trained length, as a log-mel spectrogram of that length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdk.errors import InvalidRequestError, MediaTooLargeError
from sdk.multimodal import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    MultiModalDataItems,
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PromptUpdate,
)


class WhisperProcessingInfo(BaseProcessingInfo):
    """One clip a prompt, which the encoder takes; the prompt is the decoder's."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"audio": 1}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"audio": self.get_hf_config().max_source_positions}

    @property
    def max_samples(self) -> int:
        """The longest clip."""
        return int(self.get_feature_extractor().n_samples)


class WhisperDummyInputsBuilder(BaseDummyInputsBuilder[WhisperProcessingInfo]):
    """Every clip is padded to the trained length, so silence of any length is the worst case."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        return {
            "audio": self._get_dummy_audios(length=self.info.max_samples, num_audios=mm_counts.get("audio", 0)),
        }


class WhisperMultiModalProcessor(BaseMultiModalProcessor[WhisperProcessingInfo]):
    """Clips go to the encoder; nothing stands for them in the prompt."""

    encoder_modality = "audio"

    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        config, found = self.info.get_hf_config(), tuple(hf_inputs["input_features"].shape[1:])
        wanted = (config.num_mel_bins, 2 * config.max_source_positions)
        if found != wanted:
            raise InvalidRequestError(
                f"input_features of a clip must be {wanted}, mel bins and frames, not {found}",
                param="multi_modal_data.audio",
            )
        return {"input_features": MultiModalFieldConfig.batched("audio")}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        return []

    def _call_hf_processor(
        self,
        prompt: str,
        mm_data: Mapping[str, Any],
        mm_kwargs: Mapping[str, object],
        tok_kwargs: Mapping[str, object],
    ) -> Mapping[str, Any]:
        rate = self.info.get_audio_sample_rate()
        for wave in mm_data["audio"]:
            if len(wave) > self.info.max_samples:  # the feature extractor would cut it in silence
                raise MediaTooLargeError(
                    f"the clip is {len(wave) / rate:.1f} s long, and this model hears {self.info.max_samples / rate:g} s at "
                    "once; LLM.transcribe and `engine transcribe` cut longer ones",
                    code="audio_too_long",
                    param="multi_modal_data.audio",
                )
        made: Mapping[str, Any] = self.info.get_feature_extractor()(
            list(mm_data["audio"]), sampling_rate=rate, return_tensors="pt", **mm_kwargs
        )
        return made


__all__ = ["WhisperDummyInputsBuilder", "WhisperMultiModalProcessor", "WhisperProcessingInfo"]

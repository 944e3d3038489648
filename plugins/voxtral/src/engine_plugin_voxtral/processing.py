"""How clips and prompts are treated: one audio token in a prompt becomes as many as the clip has rows of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdk.errors import InvalidRequestError, MediaTooLargeError
from sdk.multimodal import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    EmbeddingItems,
    MultiModalDataItems,
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)

from .given import NUM_WINDOWS, with_windows
from .hf_processor import AUDIO, BEGIN_AUDIO, VoxtralProcessor


class VoxtralProcessingInfo(BaseProcessingInfo):
    """Any number of clips, each as long as the language model's positions hold."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"audio": None}

    @cached_property
    def _voxtral_processor(self) -> VoxtralProcessor:
        return VoxtralProcessor.load(self.ctx.model, self.get_tokenizer(), self.get_hf_config())

    def get_hf_processor(self) -> Any:
        return self._voxtral_processor

    @property
    def rows(self) -> int:
        """Rows of embeddings of a window."""
        return self._voxtral_processor.rows

    @property
    def window(self) -> int:
        """Samples of a window."""
        return int(self.get_feature_extractor().n_samples)

    def most_windows(self, length: int) -> int:
        """How many windows of one clip fit into a sequence; one, whatever the sequence."""
        return max(1, (length - 1) // self.rows)

    @property
    def max_samples(self) -> int:
        """The longest clip that fits into any sequence of this model."""
        positions = getattr(self.get_hf_config().text_config, "max_position_embeddings", None)
        return self.window * self.most_windows(positions or 131_072)

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"audio": 1 + self.rows * self.most_windows(seq_len)}


class VoxtralDummyInputsBuilder(BaseDummyInputsBuilder[VoxtralProcessingInfo]):
    """Clips as long as a sequence holds."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return AUDIO * mm_counts.get("audio", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        length = self.info.window * self.info.most_windows(seq_len)
        return {"audio": self._get_dummy_audios(length=length, num_audios=mm_counts.get("audio", 0))}


class VoxtralMultiModalProcessor(BaseMultiModalProcessor[VoxtralProcessingInfo]):
    """One audio token, one clip."""

    def parse(self, mm_data: Mapping[str, Any]) -> MultiModalDataItems:
        """As the base does; clips that a caller has processed are checked, and are one window each unless he says otherwise."""
        return super().parse({**mm_data, "audio": with_windows(mm_data["audio"])} if "audio" in mm_data else mm_data)

    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        features: Tensor = hf_inputs["input_features"]
        audio = self.info.get_hf_config().audio_config
        found, wanted = tuple(features.shape[1:]), (audio.num_mel_bins, 2 * audio.max_source_positions)
        if found != wanted:
            raise InvalidRequestError(
                f"input_features of a window must be {wanted}, mel bins and frames, not {found}",
                param="multi_modal_data.audio",
            )
        sizes = hf_inputs.get(NUM_WINDOWS, [1] * len(features))
        return {
            "input_features": MultiModalFieldConfig.flat_from_sizes("audio", sizes),
            NUM_WINDOWS: MultiModalFieldConfig.batched("audio"),
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        audio = self.info.get_hf_config().audio_token_id
        begin: int = self.info.get_tokenizer().convert_tokens_to_ids(BEGIN_AUDIO)
        items = mm_items["audio"]

        def tokens(index: int) -> PromptUpdateDetails:
            if isinstance(items, EmbeddingItems):
                rows = items.get_feature_size(index)
            else:
                rows = self.info.rows * int(out_mm_kwargs["audio"][index][NUM_WINDOWS].value)
            return PromptUpdateDetails.select_token_id([begin, *[audio] * rows], audio)

        return [PromptReplacement(modality="audio", target=[audio], replacement=tokens)]

    def _call_hf_processor(
        self,
        prompt: str,
        mm_data: Mapping[str, Any],
        mm_kwargs: Mapping[str, object],
        tok_kwargs: Mapping[str, object],
    ) -> Mapping[str, Any]:
        processor, rate = self.info.get_hf_processor(), self.info.get_audio_sample_rate()
        for wave in mm_data["audio"]:
            if len(wave) > self.info.max_samples:
                raise MediaTooLargeError(
                    f"the clip is {len(wave) / rate:.1f} s long, and this model's positions hold "
                    f"{self.info.max_samples / rate:g} s; cut it",
                    code="audio_too_long",
                    param="multi_modal_data.audio",
                )
        clips = [processor.windows(wave, rate) for wave in mm_data["audio"]]
        return {"input_features": torch.cat(clips), NUM_WINDOWS: torch.tensor([len(clip) for clip in clips])}


__all__ = ["VoxtralDummyInputsBuilder", "VoxtralMultiModalProcessor", "VoxtralProcessingInfo"]

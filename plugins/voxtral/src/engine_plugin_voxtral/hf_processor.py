"""Voxtral's processor: what transformers' own does with clips and text, in one call and without mistral-common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdk.errors import InvalidConfigError, InvalidRequestError

from .geometry import rows_per_window

AUDIO, BEGIN_AUDIO = "[AUDIO]", "[BEGIN_AUDIO]"


@dataclass(frozen=True)
class VoxtralProcessor:
    """Clips of any length as windows, and an audio token for each row of their embeddings.

    Attributes:
        feature_extractor: HF's `WhisperFeatureExtractor`; its `n_samples` are a window.
        tokenizer: HF's tokenizer.
        rows: Rows of embeddings of a window.
        chat_template: The tokenizer's.
    """

    feature_extractor: Any
    tokenizer: Any
    rows: int
    chat_template: Any = None

    @classmethod
    def load(cls, folder: str, tokenizer: Any, config: Any) -> VoxtralProcessor:
        """Read a checkpoint's processor.

        Raises:
            InvalidConfigError: The folder has no feature extractor, or one that does not fit the encoder.
        """
        from transformers import WhisperFeatureExtractor

        try:
            extractor = WhisperFeatureExtractor.from_pretrained(folder)
        except (OSError, ValueError) as e:
            raise InvalidConfigError(f"the feature extractor of {folder!r} cannot be loaded: {e}") from e
        audio = config.audio_config
        found = (extractor.feature_size, extractor.nb_max_frames)
        if found != (audio.num_mel_bins, 2 * audio.max_source_positions):
            raise InvalidConfigError(
                f"the feature extractor of {folder!r} makes windows of {found[0]} mel bins and {found[1]} frames, but the "
                f"encoder takes {audio.num_mel_bins} and {2 * audio.max_source_positions}"
            )
        return cls(extractor, tokenizer, rows_per_window(audio), getattr(tokenizer, "chat_template", None))

    def __call__(
        self,
        text: str,
        audio: Sequence[Any] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> dict[str, Any]:
        """Process one prompt: token ids, and the windows of all clips end to end.

        Raises:
            ValueError: The text has not one audio token for each clip.
        """
        clips = [self.windows(wave, sampling_rate) for wave in audio or ()]
        texts = text.split(AUDIO)
        if len(texts) != len(clips) + 1:
            raise ValueError(f"{len(texts) - 1} {AUDIO} in the text, {len(clips)} clips")
        expanded = texts[0]
        for clip, following in zip(clips, texts[1:]):
            expanded += BEGIN_AUDIO + AUDIO * (self.rows * len(clip)) + following
        made = dict(self.tokenizer([expanded], return_tensors=return_tensors, return_token_type_ids=False))
        return {**made, "input_features": torch.cat(clips)} if clips else made

    def windows(self, wave: Any, sampling_rate: int | None = None) -> Tensor:
        """A clip, filled up with silence to whole windows: `(samples,) -> (windows, mel bins, frames)`, log-mel.

        The loudest place of the whole clip bounds what is heard in every window, so the windows are cut afterwards.
        """
        extractor = self.feature_extractor
        if sampling_rate not in (None, extractor.sampling_rate):
            raise InvalidRequestError(
                f"clips must have {extractor.sampling_rate} samples a second, not {sampling_rate}",
                param="multi_modal_data.audio",
            )
        made = extractor(
            wave,
            sampling_rate=extractor.sampling_rate,
            padding=True,
            truncation=False,
            pad_to_multiple_of=extractor.n_samples,
            return_tensors="pt",
        )["input_features"][0]
        return made.unflatten(1, (-1, extractor.nb_max_frames)).transpose(0, 1).contiguous()


__all__ = ["AUDIO", "BEGIN_AUDIO", "VoxtralProcessor"]

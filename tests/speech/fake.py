"""A speech model whose every answer can be told by hand: it hears tones of certain loudness as words.

A clip is words of 0.2 seconds with pauses between; a word's number is its loudness in sixteenths. The processor turns a clip
into up to `PLACES` words, the prompt is so many audio tokens and `PREFIX` tokens of instructions, and one layer of attention,
whose weights are positions, copies the n-th word to the n-th place of the answer. So what is read back has gone through
placeholders, embeddings, pages, batches and the sampler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import sdk
from core.registry import MODELS
from sdk.layers import Attention
from sdk.multimodal import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    MultiModalFieldConfig,
    PromptReplacement,
)
from sdk.transcription import (
    SpeechSegment,
    SpeechToTextConfig,
    SpeechToTextParams,
    SpeechWord,
    SupportsTranscription,
)

ARCHITECTURE = "SpeechForTests"
RATE, PLACES, PREFIX = 1000, 30, 6
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "hum"]
SPECIAL = (
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<audio>",
    "<en>",
    "<de>",
    "<nobody>",
    "<start>",
    "<transcribe>",
    "<translate>",
)
VOCAB = [*SPECIAL, *WORDS]
ID = {word: number for number, word in enumerate(VOCAB)}
WIDTH, HEAD = 32, 64
HUM = WORDS.index("hum") + 1


def said(*words: str, pause: float = 0.1, seconds: float = 0.2) -> NDArray[np.float32]:
    """A clip of these words; a pause stands after each. The empty word is a second of silence."""
    parts: list[NDArray[np.float32]] = []
    for word in words:
        if not word:
            parts.append(np.zeros(RATE, dtype=np.float32))
            continue
        loud = (WORDS.index(word) + 1) / 16
        square = np.where(np.arange(round(seconds * RATE)) % 2, loud, -loud)
        parts += [square.astype(np.float32), np.zeros(round(pause * RATE), dtype=np.float32)]
    return np.concatenate(parts)


def heard(wave: NDArray[np.float32]) -> list[tuple[int, float, float]]:
    """(token, start, end) of each word of a clip, in seconds."""
    loud = np.abs(wave) > 1 / 32
    edges = np.flatnonzero(np.diff(np.concatenate(([0], loud.astype(np.int8), [0]))))
    found = []
    for start, stop in edges.reshape(-1, 2):
        level = round(float(np.abs(wave[start:stop]).max()) * 16)
        found.append((ID[WORDS[min(level, len(WORDS)) - 1]], float(start / RATE), float(stop / RATE)))
    return found


class Processor:
    """What stands for an HF processor: a clip's words, then end tokens."""

    feature_extractor = SimpleNamespace(sampling_rate=RATE)

    def __call__(self, *, text: str, audio: Sequence[Any], sampling_rate: int, return_tensors: str) -> dict[str, Any]:
        assert (sampling_rate, return_tensors, text) == (RATE, "pt", "<audio>" * len(audio))
        rows = torch.full((len(audio), PLACES), ID["</s>"])
        for row, wave in zip(rows, audio):
            words = [token for token, _, _ in heard(wave)][:PLACES]
            row[: len(words)] = torch.tensor(words, dtype=torch.long)
        return {"words": rows}


class Info(BaseProcessingInfo):
    """One clip a prompt."""

    def get_hf_processor(self) -> Any:
        return Processor()

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"audio": 1}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"audio": PLACES}


class DummyInputs(BaseDummyInputsBuilder[Info]):
    """Three seconds of silence."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return "<audio>" * mm_counts.get("audio", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        return {"audio": self._get_dummy_audios(length=3 * RATE, num_audios=mm_counts.get("audio", 0))}


class MultiModalProcessor(BaseMultiModalProcessor[Info]):
    """One audio token becomes as many as there are places."""

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        return {"words": MultiModalFieldConfig.batched("audio")}

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        return [PromptReplacement("audio", [ID["<audio>"]], lambda index: [ID["<audio>"]] * PLACES)]


class SpeechModel(sdk.Model, sdk.SupportsMultiModal):
    """Copies the n-th audio token to the n-th place of the answer."""

    def __init__(self, *, ctx: sdk.ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        self.head = nn.Parameter(torch.empty(len(VOCAB), WIDTH))
        self.attention = Attention(1, HEAD, scale=1.0)

    def get_language_model(self) -> nn.Module:
        return self

    def get_input_embeddings(
        self, input_ids: Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Tensor | None = None
    ) -> Tensor:
        text = _one_hot(input_ids, WIDTH).to(self.head.dtype)
        if multimodal_embeddings is not None:
            assert is_multimodal is not None
            text[is_multimodal] = torch.cat(list(multimodal_embeddings)).to(text.dtype)
        return text

    def get_multimodal_embeddings(self, **media: Any) -> Any:
        return [_one_hot(row, WIDTH).to(self.head.dtype) for row in media["words"]]

    def forward(
        self, input_ids: Tensor | None, positions: Tensor, intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None, **media: Any,
    ) -> Tensor:  # fmt: skip
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.get_input_embeddings(input_ids)
        values = torch.nn.functional.pad(inputs_embeds, (0, HEAD - WIDTH))
        keys = _one_hot(positions.clamp(max=HEAD - 1), HEAD).to(values) * 100
        asked = (positions - (PLACES + PREFIX - 1)).clamp(0, PLACES - 1)
        copied: Tensor = self.attention(_one_hot(asked, HEAD).to(values)[:, None], keys[:, None], values[:, None])
        return copied[:, :WIDTH]

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        return hidden_states @ self.head.T


def _one_hot(ids: Tensor, width: int) -> Tensor:
    return torch.nn.functional.one_hot(ids.long(), width).float()


class Speech(SupportsTranscription):
    """The plainest plugin: it must be told the language, and knows nothing of times."""

    supported_languages: ClassVar[Mapping[str, str]] = {"en": "English", "de": "German"}
    supports_transcription_only: ClassVar[bool] = True

    @classmethod
    def get_speech_to_text_config(cls, model_config: Any, task_type: Any) -> SpeechToTextConfig:
        return SpeechToTextConfig(
            sample_rate=RATE, max_audio_clip_s=3, overlap_chunk_second=0.5, min_energy_split_window_size=50
        )

    @classmethod
    def get_generation_prompt(cls, params: SpeechToTextParams) -> Any:
        prefix = [f"<{params.language}>", f"<{params.task_type}>", *params.request_prompt.split()]
        padded = [*["<pad>"] * (PREFIX - 1 - len(prefix)), *prefix, "<start>"]
        rate = params.stt_config.sample_rate
        return {
            "prompt_token_ids": [ID["<audio>"], *(ID[token] for token in padded)],
            "multi_modal_data": {"audio": (params.audio, rate)},
        }

    @classmethod
    def validate_language(cls, language: str | None) -> str | None:
        return super().validate_language(language or "en")

    @classmethod
    def get_num_audio_tokens(cls, audio_duration_s: float, stt_config: Any, model_config: Any) -> int | None:
        return round(audio_duration_s * 10)


class Listening(Speech):
    """Tells the language, by whether the number of the first word is even, and times of segments and words."""

    supports_segment_timestamp = True
    supports_word_timestamp = True

    @classmethod
    def get_language_detection_prompt(cls, params: SpeechToTextParams) -> Any:
        ids = [ID["<audio>"], *[ID["<pad>"]] * (PREFIX - 1), ID["<start>"]]
        return {"prompt_token_ids": ids, "multi_modal_data": {"audio": (params.audio, RATE)}}

    @classmethod
    def get_language_token_ids(cls, model_config: Any) -> Mapping[str, int]:
        return {code: model_config.tokenizer.convert_tokens_to_ids(f"<{code}>") for code in cls.supported_languages}

    @classmethod
    def parse_segments(cls, output: Any, params: SpeechToTextParams) -> Sequence[SpeechSegment]:
        times = heard(params.audio)[: len(output.token_ids)]
        assert [token for token, _, _ in times] == list(output.token_ids)
        words = (
            [SpeechWord(VOCAB[token], start, end) for token, start, end in times] if params.timestamps == "word" else []
        )
        return [
            SpeechSegment(start, end, f" {VOCAB[token]}", [token], words[i : i + 1])
            for i, (token, start, end) in enumerate(times)
        ]


PARTS: dict[str, Any] = {
    "processor": MultiModalProcessor,
    "info": Info,
    "dummy_inputs": DummyInputs,
    "role": "speech-to-text",
}


def register(transcription: Any, tasks: tuple[str, ...] = (), *, model: type = SpeechModel) -> None:
    """Put the model into the registry, with this class for speech."""
    capabilities = sdk.Capabilities(tasks=tasks, modalities=("audio",))
    parts = {**PARTS, "transcription": transcription} if transcription is not None else PARTS
    MODELS.register(ARCHITECTURE, model, replace=True, capabilities=capabilities, **parts)


def write_checkpoint(folder: Path) -> None:
    """A folder in HF layout."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    head = torch.zeros(len(VOCAB), WIDTH)
    head[: len(VOCAB), : len(VOCAB)] = torch.eye(len(VOCAB)) * 6
    for number, word in enumerate(WORDS, 1):
        head[ID["<de>" if number % 2 else "<en>"], ID[word]] = 1
    head[ID["<nobody>"], ID["hum"]] = 5
    save_file({"head": head}, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": [ARCHITECTURE], "model_type": "llama", "vocab_size": len(VOCAB), "hidden_size": WIDTH,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "head_dim": HEAD, "max_position_embeddings": HEAD + PLACES, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
        "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    words = Tokenizer(models.WordLevel(ID, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[4:]),
    ).save_pretrained(folder)  # fmt: skip

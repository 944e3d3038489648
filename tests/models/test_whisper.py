"""Whisper through the engine: what it says under its rules is what it says in transformers, and transcriptions hold together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_whisper.tiny import whisper
from engine_plugin_whisper.transcription import WhisperTranscription
from numpy.typing import NDArray
from transformers import GenerationConfig, LogitsProcessorList, WhisperFeatureExtractor

from core import LLM, SamplingParams
from core.errors import InvalidRequestError
from sdk.speech import SpeechModel, SpeechToTextConfig, SpeechToTextParams
from sdk.testing.reference import load_hf

RATE = 16_000
STT = SpeechToTextConfig(RATE, 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper")
    whisper(0, path)
    return path


@pytest.fixture(scope="module")
def hf(folder: Path) -> Any:
    return load_hf(folder)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", block_size=16, max_model_len=80) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(llm: LLM) -> SpeechModel:
    """The checkpoint as the hooks see it."""
    engine, processor = llm.engine, llm.engine.inputs.mm_processor
    assert processor is not None
    load = processor.info.get_hf_processor
    return SpeechModel(str(engine.checkpoint.folder), engine.checkpoint.hf_config, engine.inputs.tokenizer, 256, load)


@pytest.fixture
def certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model doubts everything it says, and what is drawn anew differs each time: here it is believed."""
    monkeypatch.setattr("engine_plugin_whisper.transcription.DecodingFallback", lambda: None)


def clip(seed: int = 0, seconds: float = 1.3) -> NDArray[np.float32]:
    """Noise whose loudness changes; the same each time."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    loudness = np.abs(np.sin(np.arange(count) / RATE * rng.uniform(2, 9)))
    made: NDArray[np.float32] = (rng.standard_normal(count) * loudness * 0.2).astype(np.float32)
    return made


def features(folder: Path, wave: NDArray[np.float32]) -> torch.Tensor:
    """HF's log-mel."""
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    made: torch.Tensor = extractor(wave, sampling_rate=RATE, return_tensors="pt").input_features
    return made


@torch.inference_mode()
def hf_tokens(hf: Any, folder: Path, wave: NDArray[np.float32], ids: list[int], *, timestamps: bool) -> list[int]:
    """Greedy tokens of transformers under its own rules, past the end of the text."""
    said = GenerationConfig.from_pretrained(folder)
    said.return_timestamps, said.no_speech_threshold = timestamps, None
    rules: LogitsProcessorList = hf._retrieve_logit_processors(said, None, len(ids), 1, "cpu")
    tokens, encoded = torch.tensor([ids]), hf.get_encoder()(features(folder, wave))
    for _ in range(64):
        logits = hf(encoder_outputs=encoded, decoder_input_ids=tokens).logits[:, -1]
        for rule in rules:
            logits = rule(tokens, logits)
        tokens = torch.cat((tokens, logits.argmax(-1, keepdim=True)), dim=1)
    found: list[int] = tokens[0, len(ids) :].tolist()
    return found


@pytest.mark.parametrize("timestamps", [None, "segment"])
def test_greedy_tokens_under_the_rules_equal_hf(
    llm: LLM, hf: Any, folder: Path, model: SpeechModel, timestamps: Any
) -> None:
    params = [SpeechToTextParams(clip(i), STT, model, "de", timestamps=timestamps) for i in range(4)]
    prompts = [WhisperTranscription.get_generation_prompt(p) for p in params]
    rules = WhisperTranscription.get_sampling_overrides(params[0])
    sampling = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, **rules)
    for p, prompt, output in zip(params, prompts, llm.generate(prompts, sampling)):
        ids = prompt["decoder_prompt"]["prompt_token_ids"]
        expected = hf_tokens(hf, folder, p.audio, ids, timestamps=timestamps is not None)
        assert list(output.outputs[0].token_ids) == expected
        assert len(set(expected)) > 4


def test_the_language_that_is_heard_is_hf_s(llm: LLM, hf: Any, folder: Path, model: SpeechModel) -> None:
    known = WhisperTranscription.get_language_token_ids(model)
    assert set(known) == {"en", "zh", "de", "es"}
    for seed in range(5):
        said = GenerationConfig.from_pretrained(folder)
        theirs = hf.detect_language(input_features=features(folder, clip(seed)), generation_config=said)
        assert known[llm.transcribe((clip(seed), RATE)).language] == int(theirs[0])


def test_no_speech_is_what_the_model_finds_likely_before_it_writes(
    llm: LLM, hf: Any, folder: Path, model: SpeechModel
) -> None:
    start = model.tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    with torch.inference_mode():
        logits = hf(input_features=features(folder, clip()), decoder_input_ids=torch.tensor([[start]])).logits[0, 0]
    token = WhisperTranscription.get_no_speech_token_id(model)
    assert model.tokenizer.convert_ids_to_tokens(token) == "<|nospeech|>"
    (segment, *_) = llm.transcribe((clip(), RATE), language="en").segments
    assert segment.no_speech_prob == pytest.approx(float(logits.softmax(-1)[token]), rel=1e-3)


@pytest.mark.parametrize(
    ("wishes", "message", "code"),
    [
        ({"language": "klingon"}, "unsupported language 'klingon'", "unsupported_language"),
        ({"language": "fr"}, "this checkpoint has no French; it knows: en, zh, de, es", "unsupported_language"),
        ({"task": "translate", "to_language": "de"}, "into English, not into German", "unsupported_language"),
        ({"task": "sing"}, "'transcribe' or 'translate'", "unsupported_task"),
        ({"prompt": "a <|startoftranscript|> b"}, "a token of the model's own", "reserved_token"),
        ({"timestamps": "letter"}, "'segment', 'word' or None", "invalid_request"),
    ],
)
def test_wishes_that_cannot_be_granted_are_refused(llm: LLM, wishes: dict[str, Any], message: str, code: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        llm.transcribe((clip(), RATE), **{"language": "en", **wishes})
    assert caught.value.code == code


@pytest.mark.usefixtures("certain")
def test_pieces_of_a_long_clip_keep_their_times(llm: LLM) -> None:
    wave = np.concatenate([clip(i, 1.7) for i in range(4)])
    whole = llm.transcribe((wave, RATE), language="en", timestamps="segment")
    assert whole.duration == pytest.approx(6.8)
    starts = [s.start for s in whole.segments]
    assert starts == sorted(starts)
    assert all(0 <= s.start <= s.end <= 6.8001 for s in whole.segments)
    assert starts[-1] > 4


HEADS = [(1, 0), (2, 3), (0, 2)]


@pytest.mark.parametrize(
    "options", [{}, {"max_num_batched_tokens": 3}, {"kv_cache_bytes": 3 * 2 * 32 * 4 * 16 * 3}], ids=str
)
def test_cross_attention_that_is_asked_for_equals_hf(folder: Path, hf: Any, options: dict[str, Any]) -> None:
    ids = [[301, 302, 307, *np.random.default_rng(seed).integers(8, 290, 17 + seed).tolist()] for seed in range(2)]
    prompts = [
        {"prompt_token_ids": i, "multi_modal_data": {"audio": clip(seed)}, "cross_attention_heads": HEADS}
        for seed, i in enumerate(ids)
    ]
    with LLM(str(folder), dtype="float32", block_size=16, **options) as llm:
        for _ in range(2):  # the second time, what was computed before is at hand
            outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
            for seed, output in enumerate(outputs):
                with torch.inference_mode():
                    theirs = hf(
                        input_features=features(folder, clip(seed)),
                        decoder_input_ids=torch.tensor([ids[seed]]),
                        output_attentions=True,
                    ).cross_attentions
                found = output.outputs[0].cross_attention
                expected = torch.stack([theirs[layer][0, head] for layer, head in HEADS]).numpy()
                assert found.shape == expected.shape
                assert np.abs(found - expected).max() < 1e-5
        plain = llm.generate({k: v for k, v in prompts[0].items() if k != "cross_attention_heads"})[0]
        assert plain.outputs[0].cross_attention is None


@pytest.mark.parametrize(
    "heads", [[(3, 0)], [(0, 4)], [(-1, 0)], [0], "ab", 3, [(0, 1, 2)], [(0.0, 1)], [(0, 0)] * 65], ids=str
)
def test_heads_that_there_are_not_are_refused(llm: LLM, heads: Any) -> None:
    prompt = {"prompt": "", "multi_modal_data": {"audio": clip()}, "cross_attention_heads": heads}
    with pytest.raises(InvalidRequestError, match="cross_attention_heads"):
        llm.generate(prompt)


@pytest.mark.usefixtures("certain")
@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_are_the_text_and_lie_within_their_clip(llm: LLM, language: str) -> None:
    wave = np.concatenate([clip(i, 1.7) for i in range(3)])
    found = llm.transcribe((wave, RATE), language=language, timestamps="word")
    plain = llm.transcribe((wave, RATE), language=language, timestamps="segment")
    assert found.text == plain.text
    assert found.words
    assert plain.words is None
    assert "".join("".join(w.word for w in found.words).split()) == "".join(found.text.split())
    assert all(0 <= w.start <= w.end <= 5.1001 for w in found.words)
    streamed = list(llm.transcribe((wave, RATE), language=language, timestamps="word", stream=True))
    assert streamed[-1].done.words == found.words


def test_a_clip_of_another_rate_is_resampled(llm: LLM) -> None:
    made = llm.engine.inputs.process({"prompt": "", "multi_modal_data": {"audio": (clip(seconds=1.0), 8_000)}})
    assert made.prompt.encoder_item is not None
    assert made.prompt.encoder_item.kwargs["input_features"].value.shape == (80, 200)


def test_the_plan_tells_of_the_states(llm: LLM) -> None:
    states = llm.plan.states
    assert states is not None
    assert (states.rows, states.bytes_each) == (100, 3 * 2 * 128 * 32 * 4)
    assert states.count == llm.plan.max_num_seqs
    assert any(name == "states" for name, _ in llm.plan.lines())

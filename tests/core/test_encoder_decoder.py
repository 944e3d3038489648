"""A decoder that attends over what an encoder made of a clip: states are written once, shared by equal clips, and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_whisper import tiny
from engine_plugin_whisper.model import WhisperForConditionalGeneration
from engine_plugin_whisper.plugin import engine_architectures
from numpy.typing import NDArray

import core.plan
from core import LLM, SamplingParams
from core.errors import InvalidConfigError, InvalidRequestError, NumericalError, PluginContractError, PluginRuntimeError
from core.explanation import explain
from core.kernels.choice import SWITCH
from sdk import registry

from .conftest import SHORT, Hf, assert_idle, tokens

NAME = "WhisperForConditionalGeneration"
START = [301, 302, 307, 311]
"""<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper")
    tiny.whisper(0, path)
    return path


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with opened(folder) as found:
        yield found


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[LLM]:
    """An engine that is idle again at the end, no state held."""
    with LLM(str(folder), **{"dtype": "float32", "block_size": 16, **options}) as found:
        yield found
        assert_idle(found)


@pytest.fixture(autouse=True)
def _nothing_stays_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "llm" in request.fixturenames:
        assert_idle(request.getfixturevalue("llm"))


def clip(seed: int = 0, seconds: float = 1.0) -> NDArray[np.float32]:
    """A tone of its own, and noise; the same each time."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (200 + 700 * seed) * time)
    made: NDArray[np.float32] = (tone + 0.02 * np.random.default_rng(seed).standard_normal(len(time))).astype(
        np.float32
    )
    return made


def asked(seed: int = 0, ids: list[int] = START) -> dict[str, Any]:
    """A clip, and the beginning of what the decoder says of it."""
    return {"prompt_token_ids": ids, "multi_modal_data": {"audio": clip(seed, 0.5 + 0.1 * seed)}}


def long_ids(seed: int, length: int) -> list[int]:
    """A decoder's prompt of text."""
    return [START[0], *np.random.default_rng(seed).integers(8, 290, length - 1).tolist()]


MIXED = [asked(i, long_ids(i, n)) for i, n in enumerate((1, 40, 7, 90, 3, 17))]


@pytest.fixture(scope="module")
def expected(llm: LLM) -> list[list[int]]:
    """What each says alone."""
    return [tokens(llm, p, SHORT)[0] for p in MIXED]


def count_encoded(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each coming call of `encode` gets."""
    counts: list[int] = []
    encode = llm.engine.model.encode

    def counted(input_features: torch.Tensor) -> Any:
        counts.append(len(input_features))
        return encode(input_features)

    monkeypatch.setattr(llm.engine.model, "encode", counted)
    return counts


# ---- prompts ---------------------------------------------------------------------------------------------------------


def test_alone_it_says_what_it_says_in_transformers(folder: Path, llm: LLM, hf: Hf, expected: list[list[int]]) -> None:
    model = hf(folder)
    for prompt, found in zip(MIXED, expected):
        item = llm.engine.inputs.process(prompt).prompt.encoder_item
        assert item is not None
        x = item.kwargs["input_features"].value[None]
        ids = torch.tensor([[*prompt["prompt_token_ids"], *found]])[:, :-1]
        with torch.inference_mode():
            best = model(input_features=x, decoder_input_ids=ids).logits[0, -len(found) :].argmax(-1)
        assert best.tolist() == found


def test_a_prompt_in_two_parts_is_the_prompt_in_one(llm: LLM) -> None:
    audio = {"multi_modal_data": {"audio": (clip(), 16_000)}}
    text = "<|startoftranscript|><|en|> a fox"
    one = tokens(llm, [{"prompt": text, **audio}], SHORT)
    for decoder in (
        text,
        {"prompt": text},
        {"prompt_token_ids": llm.engine.inputs.process({"prompt": text, **audio}).prompt.prompt_token_ids},
    ):
        two = {"encoder_prompt": {"prompt": "", **audio}, "decoder_prompt": decoder}
        assert tokens(llm, [two], SHORT) == one
    begun = tokens(llm, [{"prompt_token_ids": START[:1], **audio}], SHORT)
    for empty in (
        {"encoder_prompt": audio},
        {"encoder_prompt": audio, "decoder_prompt": None},
        {"prompt": "", **audio},
    ):
        assert tokens(llm, [empty], SHORT) == begun


AUDIO = {"multi_modal_data": {"audio": clip()}}
BAD = {
    "no clip": ({"prompt": "a"}, "exactly one audio"),
    "a bare text": ("a", "exactly one audio"),
    "text for the encoder": ({"encoder_prompt": {"prompt": "b", **AUDIO}, "decoder_prompt": "a"}, "takes media, no text"),
    "a wrong part": ({"encoder_prompt": {"audio": clip()}}, "encoder_prompt has audio; it takes: prompt"),
    "media for the decoder": ({"decoder_prompt": {"prompt": "a", **AUDIO}}, "decoder_prompt has multi_modal_data"),
    "two texts": ({"encoder_prompt": AUDIO, "decoder_prompt": {"prompt": "a", "prompt_token_ids": [1]}}, "a prompt has"),
    "both forms": ({"encoder_prompt": AUDIO, "decoder_prompt": "a", "prompt": "b"}, "beside its parts"),
    "media twice": ({"encoder_prompt": AUDIO, "decoder_prompt": "a", **AUDIO}, "beside its parts"),
    "a number": ({"encoder_prompt": 3}, "text, token ids or a mapping, not a int"),
    "embeddings": ({"prompt_embeds": torch.zeros(3, 32)}, "takes no prompt_embeds"),
}  # fmt: skip


@pytest.mark.parametrize(("prompt", "message"), BAD.values(), ids=BAD)
def test_prompts_that_are_none_are_refused(llm: LLM, prompt: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        llm.generate(prompt)


def test_a_model_without_an_encoder_takes_no_two_parts(llama: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="has no encoder of its own"):
        llama.generate({"encoder_prompt": {"prompt": ""}, "decoder_prompt": "a"})


# ---- what shares the engine ------------------------------------------------------------------------------------------


OPTIONS = {
    "chunks of one token": {"max_num_batched_tokens": 1, "max_num_seqs": 1},
    "chunks of 7": {"max_num_batched_tokens": 7},
    "room for two clips a step": {"max_num_batched_tokens": 200},
    "pages of 3": {"block_size": 3},
    "no caches": {"enable_prefix_caching": False, "processing_cache_bytes": 0},
    "two at a time": {"max_num_seqs": 2},
}


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_company_chunks_and_kernels_change_nothing(
    folder: Path, expected: list[list[int]], options: dict[str, Any], kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, kernels)
    with opened(folder, **options) as llm:
        assert tokens(llm, MIXED, SHORT) == expected
        assert tokens(llm, MIXED[::-1], SHORT) == expected[::-1]


def test_preemption_takes_states_and_gives_them_back(folder: Path, llm: LLM, expected: list[list[int]]) -> None:
    pool = llm.plan.bytes_per_token * 16 * 7
    with opened(folder, kv_cache_bytes=pool, max_model_len=112) as small:
        outputs = small.generate(MIXED, SHORT)
        assert [list(o.outputs[0].token_ids) for o in outputs] == expected
        assert sum(o.metrics.preemptions for o in outputs) > 0


def test_one_state_serves_one_clip_after_the_other(
    folder: Path, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.plan, "STATES_SHARE", 0.0)
    with opened(folder) as llm:
        assert llm.plan.states is not None
        assert llm.plan.states.count == 1
        assert tokens(llm, MIXED, SHORT) == expected


def test_a_better_priority_takes_the_only_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.plan, "STATES_SHARE", 0.0)
    with opened(folder) as llm:

        def job(seed: int, priority: int) -> Any:
            made = llm.runner.maker.make(
                llm.runner.maker.next_id(), llm.engine.inputs.process(asked(seed)), SHORT, priority
            )
            llm.engine.add(made.requests[0])
            return made.requests[0]

        low = job(1, 5)
        llm.engine.step()
        high = job(2, 0)
        while not high.finished:
            llm.engine.step()
        assert not low.finished
        assert low.metrics.preemptions == 1
        while not low.finished:
            llm.engine.step()
        assert low.output_token_ids == tokens(llm, [asked(1)], SHORT)[0]


# ---- equal clips -----------------------------------------------------------------------------------------------------


def test_equal_clips_are_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as llm:
        counts = count_encoded(llm, monkeypatch)
        drawn = SamplingParams(temperature=1.0, n=3, seed=1, max_tokens=6, ignore_eos=True)
        llm.generate(asked(1), drawn)
        assert counts == [1]
        again = tokens(llm, [asked(1), asked(2), asked(1), asked(2)], SHORT)
        assert counts == [1, 1]
        assert again[0] == again[2] != again[1] == again[3]
        llm.engine.reset_caches()
        tokens(llm, [asked(1)], SHORT)
        assert counts == [1, 1, 1]


def test_pages_are_shared_by_equal_clips_alone(folder: Path) -> None:
    ids = long_ids(5, 60)
    with opened(folder) as llm:
        first = llm.generate(asked(1, ids), SHORT)[0]
        other = llm.generate(asked(2, ids), SHORT)[0]
        again = llm.generate(asked(1, ids), SHORT)[0]
        salted = llm.generate({**asked(1, ids), "cache_salt": "x"}, SHORT)[0]
        assert [o.num_cached_tokens for o in (first, other, again, salted)] == [0, 0, 48, 0]
        assert first.outputs[0].token_ids == again.outputs[0].token_ids == salted.outputs[0].token_ids
        assert first.outputs[0].token_ids != other.outputs[0].token_ids


# ---- ends before their time ------------------------------------------------------------------------------------------


def test_an_aborted_request_gives_its_state_back(llm: LLM) -> None:
    states = llm.engine.scheduler.states
    assert states is not None
    stream = llm.generate([asked(i) for i in range(3)], SHORT, stream=True)
    next(stream)
    assert states.pool.num_free < states.pool.num_pages
    stream.close()
    assert states.pool.num_free == states.pool.num_pages


class Faulty(WhisperForConditionalGeneration):
    """An encoder that fails at one clip."""

    fault = ""

    def encode(self, input_features: torch.Tensor) -> Any:
        states = super().encode(input_features)
        bad = (input_features[:, 0, 0] == BAD_MARK).tolist()
        if self.fault == "raises" and any(bad):
            raise RuntimeError("cannot hear this")
        if self.fault == "rows":
            return [s.repeat(2, 1) if b else s for s, b in zip(states, bad)]
        if self.fault == "none":
            return [s[:0] if b else s for s, b in zip(states, bad)]
        if self.fault == "width":
            return [s[:, :5] if b else s for s, b in zip(states, bad)]
        if self.fault == "NaN":
            return torch.stack([s * float("nan") if b else s for s, b in zip(states, bad)])
        if self.fault == "overflow":
            return torch.stack([s / s.abs().max() * 3e38 if b else s for s, b in zip(states, bad)])
        return None if any(bad) else states


BAD_MARK = 7.0
FAULTS = {
    "raises": (PluginRuntimeError, "encode.*RuntimeError: cannot hear this"),
    "rows": (PluginRuntimeError, "expected 1 to 100 rows of states, got .*200, 32"),
    "none": (PluginRuntimeError, "expected 1 to 100 rows of states, got .*0, 32"),
    "width": (PluginRuntimeError, "encode"),
    "NaN": (PluginRuntimeError, "NaN or infinity"),
    "overflow": (NumericalError, "other requests are not affected"),
    "nothing": (PluginRuntimeError, "returned NoneType"),
}


@contextmanager
def faulty(folder: Path, model: type, **fields: Any) -> Iterator[LLM]:
    """An engine with one part of the plugin replaced."""
    record = engine_architectures()[0]
    parts = {
        k: getattr(record, k) for k in ("processor", "info", "dummy_inputs", "capabilities", "role", "transcription")
    }
    registry.register(NAME, model, part="model", replace=True, **{**parts, **fields})
    try:
        made = opened(folder)
        with made as llm:
            yield llm
    finally:
        registry.unregister(NAME)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_clip_that_cannot_be_encoded_ends_its_own_request(
    folder: Path, expected: list[list[int]], fault: str
) -> None:
    error, message = FAULTS[fault]
    features = torch.randn(1, 80, 2 * tiny.POSITIONS, generator=torch.Generator().manual_seed(0))
    features[0, 0, 0] = BAD_MARK
    bad = {"prompt_token_ids": START, "multi_modal_data": {"audio": {"input_features": features}}}
    with faulty(folder, type("Broken", (Faulty,), {"fault": fault})) as llm:
        outputs = llm.generate([*MIXED[:2], bad, *MIXED[2:]], SHORT, on_error="return")
        failed = outputs.pop(2)
        with pytest.raises(error, match=message):
            raise failed.error
        assert [o.error for o in outputs] == [None] * len(MIXED)
        assert [list(o.outputs[0].token_ids) for o in outputs] == expected
        assert tokens(llm, MIXED, SHORT) == expected
        assert llm.engine.states is not None
        assert all(torch.isfinite(x).all() for kv in llm.engine.states.memory.values() for x in kv)


# ---- start -----------------------------------------------------------------------------------------------------------


def test_a_model_whose_plugin_names_no_encoder_modality_is_refused(folder: Path) -> None:
    from engine_plugin_whisper.processing import WhisperMultiModalProcessor

    class Forgetful(WhisperMultiModalProcessor):
        encoder_modality = None

    with (
        pytest.raises(PluginContractError, match="its processor must name the encoder_modality"),
        faulty(folder, WhisperForConditionalGeneration, processor=Forgetful),
    ):
        pass


def test_it_says_nothing_without_clips(folder: Path) -> None:
    with pytest.raises(InvalidConfigError, match="says nothing without audio"):
        LLM(str(folder), limit_mm_per_prompt={"audio": 0})


def test_explain_tells_of_the_states(folder: Path, llm: LLM, tmp_path: Path) -> None:
    found = explain(str(folder), dtype="float32", block_size=16)
    assert found.refused is None
    assert found.plan is not None
    assert found.plan.states == llm.plan.states
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    bare = explain(str(tmp_path), dtype="float32")
    assert bare.refused is None
    assert any("unknown" in note for note in bare.notes)

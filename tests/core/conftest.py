"""Tiny checkpoints and engines, made once for all tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_llama import tiny as llama_tiny
from engine_plugin_llava import tiny as llava_tiny
from PIL import Image

from core import LLM, SamplingParams
from core.grammar.compiler import GrammarCompiler
from sdk import registry
from sdk.testing.reference import load_hf

from .gate import PATIENCE, Shared

GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
LLAVA = "LlavaForConditionalGeneration"
LLAVA_PARTS = {
    "processor": "engine_plugin_llava.processing:LlavaMultiModalProcessor",
    "info": "engine_plugin_llava.processing:LlavaProcessingInfo",
    "dummy_inputs": "engine_plugin_llava.processing:LlavaDummyInputsBuilder",
    "capabilities": "engine_plugin_llava.plugin:capabilities",
    "role": "vision-language",
}
Hf = Callable[[Path], Any]
Faulty = Callable[..., AbstractContextManager[LLM]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _grammars_have_time() -> Iterator[None]:
    """A grammar that is not compiled in time says that the machine is busy, but where a test gives it less."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GrammarCompiler.__init__.__kwdefaults__, "seconds", PATIENCE)
        yield


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    llama_tiny.llama(0, folder)
    return folder


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    llava_tiny.llava(0, folder)
    return folder


@pytest.fixture(scope="session")
def shared_llama(llama_folder: Path) -> Iterator[Shared[LLM]]:
    made = Shared(lambda: LLM(str(llama_folder), dtype="float32", block_size=16), LLM.close)
    yield made
    made.close()


@pytest.fixture(scope="session")
def shared_llava(llava_folder: Path) -> Iterator[Shared[LLM]]:
    made = Shared(lambda: LLM(str(llava_folder), dtype="float32", block_size=16), LLM.close)
    yield made
    made.close()


@pytest.fixture
def llama(shared_llama: Shared[LLM]) -> LLM:
    return shared_llama.get()


@pytest.fixture
def llava(shared_llava: Shared[LLM]) -> LLM:
    return shared_llava.get()


@pytest.fixture(autouse=True)
def _nothing_stays_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test, the shared engines live, and have all their pages and no request."""
    yield
    for name in ("shared_llama", "shared_llava"):
        if name in request.fixturenames:
            shared: Shared[LLM] = request.getfixturevalue(name)
            llm = shared.get()
            with shared.checked():
                assert llm.engine.dead is None
                assert_idle(llm)


@pytest.fixture(scope="session")
def hf() -> Hf:
    """A checkpoint in transformers, float32 and eager, end tokens ignored; opened once."""
    models: dict[Path, Any] = {}

    def open_once(folder: Path) -> Any:
        if folder not in models:
            models[folder] = load_hf(folder)
            models[folder].generation_config.eos_token_id = None
        return models[folder]

    return open_once


@pytest.fixture
def faulty(llava_folder: Path) -> Faulty:
    """Opens the tiny LLaVA with one part of its plugin replaced by a broken one."""

    @contextmanager
    def open_with(part: str, value: Any, **options: Any) -> Iterator[LLM]:
        fields = {k: v for k, v in LLAVA_PARTS.items() if k != part} if part == "model" else {}
        registry.register(LLAVA, value, part=part, replace=True, **fields)
        try:
            llm = LLM(str(llava_folder), **{"dtype": "float32", "block_size": 16, **options})
        finally:
            registry.unregister(LLAVA)
        with llm:
            yield llm
            assert_idle(llm)

    return open_with


def assert_idle(llm: LLM) -> None:
    """Nothing runs or waits, and no page or slot is held."""
    engine = llm.engine
    assert engine.pool.num_free == engine.pool.num_pages
    assert not engine.scheduler.has_work
    states = engine.scheduler.states
    assert states is None or states.pool.num_free == states.pool.num_pages
    assert len(engine.scheduler._free_slots) == engine.config.max_num_seqs
    assert not engine._requests
    assert not llm.runner.jobs


def hf_greedy(model: Any, inputs: Mapping[str, Any], found: Sequence[int]) -> list[int]:
    """What transformers finds likeliest at each place of a completion: `found` itself when it decodes the same greedily."""
    ids = torch.cat((inputs["input_ids"], torch.tensor([list(found)])), dim=1)[:, :-1]
    media = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        logits = model(input_ids=ids, **media).logits
    best: list[int] = logits[0, inputs["input_ids"].shape[1] - 1 :].argmax(-1).tolist()
    return best


def ids_of(prompt: Sequence[int]) -> dict[str, torch.Tensor]:
    """Token ids as transformers takes them."""
    return {"input_ids": torch.tensor([list(prompt)])}


def picture(seed: int = 0, width: int = 70, height: int = 50) -> Image.Image:
    """A picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def prompt_ids(seed: int, length: int, vocab: int = 300) -> list[int]:
    """A prompt of random ids, none of them special."""
    return np.random.default_rng(seed).integers(8, vocab, length).tolist()


def with_pictures(text: str, *seeds: int) -> dict[str, Any]:
    """A prompt with pictures of noise."""
    return {"prompt": text, "multi_modal_data": {"image": [picture(s) for s in seeds]}}


def tokens(llm: LLM, prompts: Any, params: Any = GREEDY) -> list[list[int]]:
    """The output tokens of prompts run together."""
    return [list(o.outputs[0].token_ids) for o in llm.generate(prompts, params)]


def copy_checkpoint(source: Path, target: Path, *, but: Sequence[str] = ()) -> Path:
    """A copy of a checkpoint's files, some left out."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.name not in but:
            (target / file.name).write_bytes(file.read_bytes())
    return target

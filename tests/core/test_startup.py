"""What is imported, and what is not, until a model answers; and that nobody misses what was put off."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import safetensors
import torch

from core import checkpoint
from core.checkpoint import Checkpoint
from sdk._later import models_later
from sdk._lazy import collector_paused

ROOT = Path(__file__).parents[2]
NEEDLESS = {
    "onnx",
    "scipy.special",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.fx.experimental.symbolic_shapes",
    "transformers.activations",
    "transformers.generation.continuous_batching",
    "transformers.integrations.hub_kernels",
    "transformers.modeling_utils",
    "triton",
}
"""What neither a config, a tokenizer or a processor needs, nor a step."""
NEEDED_BY_PICTURES = {"transformers.image_processing_utils", "transformers.processing_utils"}
ANSWER = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import numpy as np
from core import LLM, SamplingParams
with LLM(sys.argv[2], dtype="bfloat16", block_size=16, quantization=sys.argv[4] or None) as llm:
    media = {"image": np.zeros((8, 8, 3), np.uint8)} if int(sys.argv[3]) else {}
    prompt = {"prompt_token_ids": [int(sys.argv[3]) or 5, 6, 7], "multi_modal_data": media}
    llm.generate([prompt], SamplingParams(temperature=0, max_tokens=8, ignore_eos=True), use_progress=False)
print(json.dumps(sorted(sys.modules)))
"""
LATER = {"transformers.activations", "transformers.modeling_utils"}


def imported_until_it_answers(folder: Path, image_token: int = 0, quantization: str = "") -> set[str]:
    path = json.dumps([str(ROOT), *map(str, ROOT.glob("plugins/*/src"))])
    command = [sys.executable, "-c", ANSWER, path, str(folder), str(image_token), quantization]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("quantization", ["", "int8"])
def test_until_text_is_answered_nothing_is_imported_that_is_not_needed(llama_folder: Path, quantization: str) -> None:
    imported = imported_until_it_answers(llama_folder, quantization=quantization)
    assert "torch" in imported
    assert imported & (NEEDLESS | NEEDED_BY_PICTURES) == set()


def test_until_a_picture_is_answered_neither(llava_folder: Path) -> None:
    token = json.loads((llava_folder / "config.json").read_text())["image_token_index"]
    imported = imported_until_it_answers(llava_folder, token)
    assert imported >= {"torch", "PIL.Image", "transformers.processing_utils"}
    assert imported & NEEDLESS == set()


def loaded(module: ModuleType) -> bool:
    return "torch" in vars(module)


@pytest.fixture
def as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had imported the modules yet."""
    for name in LATER:
        importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("as_new")
def test_a_table_is_loaded_when_it_is_looked_at() -> None:
    with models_later():
        from transformers.activations import ACT2FN

        assert not loaded(sys.modules["transformers.activations"])
        assert "silu" in ACT2FN
        assert "no such activation" not in ACT2FN
        assert type(ACT2FN["silu"]).__name__ == "SiLUActivation"
        assert len(ACT2FN) == len(list(ACT2FN)) > 10
        assert loaded(sys.modules["transformers.activations"])
    assert loaded(sys.modules["transformers.activations"])
    assert "transformers.modeling_utils" not in sys.modules


@pytest.mark.usefixtures("as_new")
def test_a_class_is_loaded_when_it_is_looked_at() -> None:
    with models_later():
        from transformers.modeling_utils import PreTrainedAudioTokenizerBase

        assert not loaded(sys.modules["transformers.modeling_utils"])

        class Derived(PreTrainedAudioTokenizerBase):
            pass

    real = sys.modules["transformers.modeling_utils"].PreTrainedAudioTokenizerBase
    assert Derived.__mro__[1] is real
    assert issubclass(Derived, PreTrainedAudioTokenizerBase)
    assert isinstance(Derived.__new__(Derived), PreTrainedAudioTokenizerBase)
    assert not isinstance(1, PreTrainedAudioTokenizerBase)
    assert PreTrainedAudioTokenizerBase.__mro_entries__(()) == (real,)
    assert PreTrainedAudioTokenizerBase.from_pretrained == real.from_pretrained


@pytest.mark.usefixtures("as_new")
def test_whatever_else_a_module_has_is_found_in_it() -> None:
    with models_later():
        from transformers.activations import GELUActivation

        with pytest.raises(ImportError, match="NoSuchActivation"):
            from transformers.activations import NoSuchActivation  # noqa: F401
    assert GELUActivation.__name__ == "GELUActivation"


@pytest.mark.usefixtures("as_new")
def test_afterwards_modules_are_imported_as_ever() -> None:
    with models_later():
        held = sys.modules["transformers.activations"]
        with models_later():
            assert sys.modules["transformers.activations"] is held
        assert sys.modules["transformers.activations"] is held
    assert not sys.modules.keys() & LATER
    assert importlib.import_module("transformers.activations") is not held
    assert held.GELUActivation is sys.modules["transformers.activations"].GELUActivation


def test_modules_that_are_there_stay() -> None:
    there = {name: importlib.import_module(name) for name in LATER}
    with models_later():
        assert all(sys.modules[name] is module for name, module in there.items())
    assert all(sys.modules[name] is module for name, module in there.items())


def test_the_collector_rests_and_goes_on() -> None:
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with collector_paused():
            pass
        assert gc.get_freeze_count() >= frozen * 0.9
    finally:
        gc.unfreeze()


def test_a_file_is_opened_anew_and_every_tensor_read_once(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a file counts as memory of the process until it is closed."""
    whole = dict(Checkpoint(llama_folder, {}).tensors())
    opened: list[Path] = []
    real = safetensors.safe_open
    monkeypatch.setattr(checkpoint, "MAPPED_BYTES", 2 * max(tensor.nbytes for tensor in whole.values()))
    monkeypatch.setattr(safetensors, "safe_open", lambda file, **way: opened.append(file) or real(file, **way))
    pieces = list(Checkpoint(llama_folder, {}).tensors())
    assert [name for name, _ in pieces] == list(whole)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in pieces)
    assert 2 < len(opened) < len(whole)

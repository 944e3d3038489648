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

from core.config_classes import activations_later
from sdk._lazy import collector_paused

ROOT = Path(__file__).parents[2]
NEEDLESS = [
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
    "transformers.image_processing_utils",
    "transformers.integrations.hub_kernels",
    "transformers.modeling_utils",
    "transformers.processing_utils",
    "triton",
]
"""What neither a config nor a tokenizer needs, nor a step of a model that takes text."""
ANSWER = """
import json, sys
sys.path[:0] = json.loads(sys.argv[2])
from core import LLM, SamplingParams
with LLM(sys.argv[1], dtype="bfloat16", block_size=16) as llm:
    llm.generate([{"prompt_token_ids": [5, 6, 7]}], SamplingParams(temperature=0, max_tokens=1), use_progress=False)
print(json.dumps(sorted(sys.modules)))
"""
NAME = "transformers.activations"


def test_until_a_text_model_answers_nothing_is_imported_that_it_does_not_need(llama_folder: Path) -> None:
    path = json.dumps([str(ROOT), *map(str, ROOT.glob("plugins/*/src"))])
    command = [sys.executable, "-c", ANSWER, str(llama_folder), path]
    imported = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert "torch" in imported
    assert [name for name in NEEDLESS if name in imported] == []


@pytest.fixture
def activations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module itself; as if nobody had imported it yet."""
    module = importlib.import_module(NAME)
    monkeypatch.delitem(sys.modules, NAME)
    return module


def test_activations_are_loaded_when_one_is_looked_up(activations: ModuleType) -> None:
    with activations_later():
        from transformers.activations import ACT2FN

        assert sys.modules[NAME].__dict__.keys().isdisjoint({"GELUActivation", "nn"})
        assert "silu" in ACT2FN
        assert len(ACT2FN) == len(activations.ACT2FN)
        assert list(ACT2FN) == list(activations.ACT2FN)
        assert type(ACT2FN["silu"]).__name__ == "SiLUActivation"
        assert sys.modules[NAME].ACT2FN is not ACT2FN
    assert "torch" in vars(sys.modules[NAME])


def test_whatever_else_the_module_has_is_found_in_it(activations: ModuleType) -> None:
    with activations_later():
        from transformers.activations import GELUActivation

        with pytest.raises(ImportError, match="NoSuchActivation"):
            from transformers.activations import NoSuchActivation  # noqa: F401
    assert GELUActivation.__name__ == "GELUActivation"


def test_afterwards_the_module_is_imported_as_ever(activations: ModuleType) -> None:
    with activations_later():
        held = sys.modules[NAME]
    assert NAME not in sys.modules
    assert importlib.import_module(NAME) is not held
    assert held.GELUActivation is sys.modules[NAME].GELUActivation


def test_activations_that_are_there_stay() -> None:
    module = importlib.import_module(NAME)
    with activations_later():
        assert sys.modules[NAME] is module
    assert sys.modules[NAME] is module


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

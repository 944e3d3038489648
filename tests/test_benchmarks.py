"""What is measured is compared rightly, and drawn; that systems do what they are asked is theirs to assert."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from engine_plugin_llama import tiny
from safetensors.torch import load_file, save_file

from benchmarks.__main__ import Rounds, systems_of
from benchmarks.cases import CASES
from benchmarks.plot import UNITS, WHAT, draw
from benchmarks.systems import SYSTEMS, environment, system
from benchmarks.systems.gguf_file import _interleaved, _tensors
from benchmarks.systems.held import Held
from benchmarks.worker import Worker, WorkerError, Workers
from core import LLM, SamplingParams

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("case", "figure", "expected"), [("a", "out_tok_s", 2.0), ("b", "ms_per_token", 0.5)])
def test_twice_the_figure_is_twice_as_good_or_half(case: str, figure: str, expected: float) -> None:
    machine = {"read_gb_s": 20.0, "bf16_tflop_s": 0.4}
    of = {"ours": [{figure: 20.0, "seconds": 30.0}] * 3, "other": [{figure: 10.0, "seconds": 60.0}] * 3}
    line = Rounds(case, CASES[case], of, [machine] * 3).line()
    assert line["times_better_than"] == {"other": expected}
    share = line["share_of_machine"]
    assert isinstance(share, float)
    assert 0 < share < 2


def test_a_variant_is_compared_with_ours_as_it_is() -> None:
    assert systems_of(CASES["b-int8"], ["ours", "transformers", "openvino"]) == ["ours-int8", "openvino-int8", "ours"]
    assert systems_of(CASES["b"], ["ours", "vllm"]) == ["ours", "vllm"]


def test_every_case_can_be_drawn() -> None:
    assert set(WHAT) == set(CASES)
    assert {c.figure for c in CASES.values()} == set(UNITS)
    lines = [
        {"case": name, "figure": c.figure, "better": c.better, "median": {"ours": 1.5, "a peer": 1234.0}}
        for name, c in CASES.items()
    ]
    drawn = ElementTree.fromstring(draw(lines))
    assert len(drawn.findall("{*}rect")) == 1 + 2 + 2 * len(CASES)


def test_a_system_is_found_without_what_it_measures() -> None:
    code = "import sys; from benchmarks.systems import SYSTEMS, system; [*map(system, SYSTEMS)]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert all(callable(system(name)) and isinstance(environment(name, Path(sys.executable)), dict) for name in SYSTEMS)


def test_a_system_that_is_not_there_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WorkerError, match=r"vllm: .*No module named 'vllm'"):
        Worker("vllm", tmp_path, Path(sys.executable))


class _Asked:
    """A worker that may have ended."""

    def __init__(self, name: str) -> None:
        self.name, self.ended, self.closed = name, False, False

    def close(self) -> None:
        self.closed = True


def test_a_process_that_ended_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Workers, "fresh", lambda self, name: _Asked(name))
    with Workers(tmp_path, {}) as workers:
        first = workers.kept("ours")
        assert workers.kept("ours") is first
        first.ended = True
        assert workers.kept("ours") is not first
        assert first.closed
        assert workers.kept("ours").closed is False


def test_memory_is_told_by_what_it_is_for(tmp_path: Path) -> None:
    tiny.llama(0, tmp_path)
    with LLM(str(tmp_path), dtype="float32", block_size=16, disable_progress=True) as llm:
        held = Held(llm.engine).figures
        assert held()["cache_mib"] == 0
        params = SamplingParams(temperature=0, max_tokens=1)
        llm.generate([{"prompt_token_ids": [5] * 16}, {"prompt_token_ids": [6] * 40}], params, use_progress=False)
        page = sum(tensor[0].nbytes for pair in llm.engine.pages.values() for tensor in pair)
        assert held()["cache_mib"] == (1 + 3) * page / 2**20
        assert (
            held()["weights_mib"] == sum(p.nbytes for p in load_file(tmp_path / "model.safetensors").values()) / 2**20
        )


def test_a_checkpoint_is_read_for_llama_cpp(tmp_path: Path) -> None:
    weights = {"a": torch.randn(4, 6).bfloat16(), "b": torch.randn(3).bfloat16()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    found = dict(_tensors(tmp_path / "model.safetensors"))
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name], weights[name].float().numpy()) for name in weights)


def test_halves_of_a_head_lie_in_pairs() -> None:
    rows = np.arange(2 * 6, dtype=np.float32)[:, None] * np.ones((1, 3), dtype=np.float32)
    assert _interleaved(rows, heads=2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]

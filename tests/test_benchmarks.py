"""What is measured is compared rightly, and drawn; that systems do what they are asked is theirs to assert."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import Rounds, systems_of
from benchmarks.cases import CASES
from benchmarks.plot import UNITS, WHAT, draw
from benchmarks.systems import SYSTEMS, environment, system
from benchmarks.worker import Worker, WorkerError

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

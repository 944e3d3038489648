"""The faults that an author meets first are told in words that say what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cli.verify_report import show
from sdk.testing.fake_dist import write_distribution
from sdk.testing.law import LawResult
from sdk.testing.probe import probe
from sdk.testing.suite import Report

RECORD = "sdk.Architecture(name='A', model='first_faults.model:A'{more})"
PLUGIN = "import sdk\n\n\n@sdk.hookimpl\ndef engine_architectures():\n    return {answer}\n"


@pytest.mark.parametrize(
    ("module", "answer", "said"),
    [
        ("first_faults.plugn", "[]", "did you mean first_faults.plugin?"),
        ("first_faults.registry", "[]", "first_faults has no registry; it has: plugin"),
        ("first_fault.plugin", "[]", "No module named 'first_fault'"),
        ("first_faults.plugin", RECORD.format(more=""), "must return a list of sdk.Architecture, not Architecture("),
        ("first_faults.plugin", "None", "must return a list of sdk.Architecture, not None"),
        (
            "first_faults.plugin",
            f"[{RECORD.format(more=', procesor=1')}]",
            "there is no 'procesor'; did you mean 'processor'?",
        ),
        ("first_faults.plugin", f"[{RECORD.format(more=', tiny=1')}]", "tiny: Input should be a valid string"),
    ],
)
def test_a_plugin_module_that_cannot_be_asked_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, answer: str, said: str
) -> None:
    files = {"first_faults/__init__.py": "", "first_faults/plugin.py": PLUGIN.format(answer=answer)}
    write_distribution(tmp_path, "first-faults", entry_points={}, files=files)
    monkeypatch.syspath_prepend(str(tmp_path))
    error = probe(module).error
    assert said in error
    assert "\n" not in error


def test_laws_that_fail_in_the_same_words_are_explained_once(capsys: pytest.CaptureFixture[str]) -> None:
    def failed(law: str, detail: str) -> LawResult:
        return LawResult(law, 2, f"the statement of {law}", "failed", detail, docs=f"page#{law}")

    show(Report("A", "p", (failed("L2.a", "one"), failed("L2.b", "two"), failed("L2.c", "one"))))
    _, _, below = capsys.readouterr().out.partition("L2.a failed: one")
    assert "also:     L2.c" in below
    assert "L2.b failed: two" in below
    assert "L2.c failed" not in below
    assert "3 failed" in below

"""Every faulty plugin is caught at its level, with the right explanation; no sound one is accused of anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from core.runtime import CoreRuntime
from sdk.testing import Suite
from sdk.testing.levels import LEVELS, laws_up_to
from sdk.testing.source_folder import on_path

from .faults import FOLDER, SOUND, Fault, all_faults

FAULTS = all_faults()
LOWER = (
    *(law.id for law in LEVELS[0] if law.id.startswith("L0.no-")),
    *("L1.parts", "L1.capabilities", "L1.weights", "L1.bfloat16", "L2.ids-equal-hf", "L2.placeholder-rows"),
    *("L3.dummy-tokens", "L4.logits-reference", "L4.media-reference", "L4.logits-engine"),
)
"""Laws that have nothing against a plugin with a fault of a higher level."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def suite_of(folder: Path) -> Iterator[Suite]:
    """The laws about the one architecture of a plugin's folder, which is not installed."""
    with on_path(folder) as distribution:
        runtime = CoreRuntime()
        (architecture,) = runtime.architectures(distribution)
        with Suite(architecture, runtime) as suite:
            yield suite


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sound plugins' tiny checkpoints, made once."""
    made = {}
    for name in SOUND:
        made[name] = tmp_path_factory.mktemp(name)
        with suite_of(FOLDER / name) as suite:
            suite.subject.plugin.load("tiny")(0, made[name])
    return made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_faulty_plugin_is_caught(fault: Fault, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with suite_of(fault.write(tmp_path)) as suite:
        if not fault.changes("tiny.py"):
            suite.subject.folder = checkpoints[fault.base]
        lower = [law for law in LOWER if law[:2] < fault.law[:2]]
        accused = [result.explain() for law in lower if (result := suite.check(law)).status == "failed"]
        result = suite.check(fault.law)
    assert accused == []
    assert result.status == "failed", result.explain()
    assert fault.says in result.detail, result.explain()
    assert fault.smallest in result.smallest, result.explain()
    assert fault.cause in result.cause, result.explain()
    assert result.smallest, result.explain()
    assert result.cause, result.explain()
    assert result.docs == f"docs/verify.md#{fault.law.lower().replace('.', '')}"


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_plugin_is_not_accused(name: str) -> None:
    with suite_of(FOLDER / name) as suite:
        results = [suite.check(law.id) for law in laws_up_to(5)]
    assert [result.explain() for result in results if result.status == "failed"] == []


def test_there_are_faults_of_every_level() -> None:
    assert {fault.law[:2] for fault in FAULTS} == {f"L{level}" for level in LEVELS}

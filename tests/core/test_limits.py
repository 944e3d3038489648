"""How many items a prompt may have: what nobody named keeps its default, and a slip of the pen is no limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import explain
from core.cli import run
from core.cli.limits import parse_limits
from core.config import EngineConfig
from core.errors import InvalidConfigError, InvalidRequestError


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, {"image": 8}), ({"audio": 1}, {"image": 8, "audio": 1}), ({"image": 0}, {"image": 0}),
     ({"image": 12, "audio": 0}, {"image": 12, "audio": 0})],
)  # fmt: skip
def test_a_limit_changes_its_own_modality_alone(given: dict[str, int], kept: dict[str, int]) -> None:
    assert EngineConfig.make("a", {"limit_mm_per_prompt": given}).limit_mm_per_prompt == kept
    assert EngineConfig.make("a", {}).limit_mm_per_prompt == {"image": 8}


def test_limits_of_the_user_come_before_those_of_the_plugin_and_these_before_the_default() -> None:
    plugin = {"limit_mm_per_prompt": {"image": 2, "video": 1}}
    found = EngineConfig.make("a", {"limit_mm_per_prompt": {"video": 3}}, plugin)
    assert found.limit_mm_per_prompt == {"image": 2, "video": 3}
    assert EngineConfig.make("a", {}, plugin).limit_mm_per_prompt == {"image": 2, "video": 1}
    with pytest.raises(InvalidConfigError, match="limit_mm_per_prompt"):
        EngineConfig.make("a", {"limit_mm_per_prompt": "image=2"}, plugin)


def test_a_modality_that_nobody_knows_is_refused_with_the_nearest(llava_folder: Path, llama_folder: Path) -> None:
    for folder, name, says in (
        (llava_folder, "images", "'images', which is no modality; did you mean 'image'?"),
        (llama_folder, "audios", "'audios', which is no modality; did you mean 'audio'?"),
        (llava_folder, "smell", "'smell', which is no modality; known: audio, image, video"),
    ):
        told = explain(str(folder), limit_mm_per_prompt={name: 0})
        assert told.refused_code == "invalid_config"
        assert says in str(told.refused)


def test_a_modality_of_other_models_beside_it_is_none_of_a_models_business(
    llava_folder: Path, llama_folder: Path
) -> None:
    for folder, limits in ((llava_folder, [8]), (llama_folder, [])):
        told = explain(str(folder), limit_mm_per_prompt={"audio": 1})
        assert told.refused is None
        assert told.plan is not None
        assert [media.limit for media in told.plan.media] == limits


@pytest.mark.parametrize(
    "given",
    [["image=2,audio=1"], ["image=2", "audio=1"], [" image = 2 , audio = 1 "], ['{"image": 2, "audio": 1}'],
     ["image=9", "image=2,audio=1"]],
)  # fmt: skip
def test_ways_to_write_limits(given: list[str]) -> None:
    assert parse_limits(given) == {"image": 2, "audio": 1}


@pytest.mark.parametrize(
    "given", ["", "image", "=2", "image=", "image=two", "image=-1", "image=1.5", "image=²", "image=2,", "{", '{"image": 1.5}',
              '{"image": "2"}', '{"image": true}', '{"image": -1}', "[1]"]
)  # fmt: skip
def test_what_is_no_limit_is_shown(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="--limit is MODALITY=N") as caught:
        parse_limits([given])
    assert repr(given)[1:-1] in str(caught.value)


def test_explain_keeps_the_default_beside_another_limit(llava_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", str(llava_folder), "--limit", '{"audio": 1}']) == 0
    assert "8 a prompt" in capsys.readouterr().out
    assert run(["explain", str(llava_folder), "--limit", "images=0"]) == 1
    assert "did you mean 'image'?" in capsys.readouterr().out

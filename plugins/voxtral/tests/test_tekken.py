"""`tekken.json` as an HF tokenizer, against mistral-common."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mistral_common
import pytest
from engine_plugin_voxtral import tiny
from engine_plugin_voxtral.tekken import load_tokenizer, tekken_tokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from sdk.testing.samples import texts
from sdk.testing.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    return load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return Tekkenizer.from_file(folder / "tekken.json")


def test_ids_of_any_text_equal_mistral_common(ours: Any, theirs: Any) -> None:
    for text in (
        "",
        " ",
        "aaaaaaa",
        "the the  the\r\n\n the",
        "I'LL we'll 1234 x²",
        *texts(500, ours.all_special_tokens),
    ):
        ids = ours(text)["input_ids"]
        assert ids == theirs.encode(text, bos=True, eos=False)
        assert ours.decode(ids, skip_special_tokens=True) == text


def test_every_id_is_the_same_piece(ours: Any, theirs: Any) -> None:
    assert len(ours) == theirs.n_words == 360
    for i in range(len(ours)):
        assert ours.decode([i]) == theirs.id_to_piece(i)
    names = ("bos", "eos", "pad", "unk")
    assert [getattr(ours, f"{n}_token_id") for n in names] == [getattr(theirs, f"{n}_id") for n in names]
    assert set(ours.all_special_ids) == theirs.special_ids


def test_special_tokens_are_one_token_each_and_nothing_is_stripped_around_them(ours: Any, theirs: Any) -> None:
    ids = ours("[INST] a [/INST]", add_special_tokens=False)["input_ids"]
    text = theirs.encode(" a ", bos=False, eos=False)
    assert ids == [theirs.get_special_token("[INST]"), *text, theirs.get_special_token("[/INST]")]


@pytest.mark.slow
def test_ids_equal_with_a_published_vocabulary(tmp_path: Path) -> None:
    """That of 2024, which mistral-common brings; it knows no clips yet."""
    said = json.loads((Path(mistral_common.__file__).parent / "data" / "tekken_240911.json").read_text())
    said["special_tokens"] = [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(tiny.SPECIAL)]
    said["config"]["version"] = "v7"
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(said))
    ours, theirs = tekken_tokenizer(path), Tekkenizer.from_file(path)
    assert len(ours) == theirs.n_words == 131_072
    for text in (
        *texts(1000, ours.all_special_tokens),
        Path(__file__).read_text(),
        "ÀÉ naïve CamelCase HTTPServer\t" * 9,
    ):
        parts = [part for part in text.split("[") if part]  # no special token's name
        for part in parts:
            assert ours(part)["input_ids"] == theirs.encode(part, bos=True, eos=False)


def test_a_template_beside_the_file_comes_first_and_a_tokenizer_json_serves_as_well(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "tekken.json", tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert load_tokenizer(str(tmp_path)).chat_template == "{{ messages[0]['content'] }}"
    assert "[INST]" in load_tokenizer(str(folder / "tekken.json")).chat_template
    other = tmp_path / "other"
    tiny_tokenizer().save_pretrained(other)
    assert len(load_tokenizer(str(other))) == 320


def changed(folder: Path, tmp_path: Path, change: Any) -> Path:
    said = json.loads((folder / "tekken.json").read_text())
    change(said)
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(said))
    return path


def _twice(said: Any) -> None:
    said["vocab"][-1]["token_bytes"] = said["vocab"][-2]["token_bytes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said.pop("special_tokens"), r"has no special tokens .*\[AUDIO\].*takes no clips"),
        (lambda said: said["special_tokens"].pop(24), r"has no special tokens \[AUDIO\]"),
        (lambda said: said["config"].update(default_num_special_tokens=30), "do not have the ids 0 to 29"),
        (_twice, "lists 319 different tokens, not 320"),
        (lambda said: said["config"].update(default_vocab_size=400), "lists 320 different tokens, not 360"),
    ],
)
def test_a_file_that_is_no_tokenizer_of_a_model_with_clips_is_refused(
    folder: Path, tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tekken_tokenizer(changed(folder, tmp_path, change))

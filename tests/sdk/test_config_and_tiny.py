"""The torch-free view of a config, tiny tokenizers, and the record a config finds."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdk import Architecture, Capabilities, ConfigView
from sdk.errors import InvalidConfigError, PluginMissingError
from sdk.testing.reference import assert_close, find_record
from sdk.testing.tiny import tiny_tokenizer


def test_either_spelling_of_a_key_finds_either() -> None:
    old = ConfigView({"torch_dtype": "float16", "image_token_index": 7, "rope_scaling": {"type": "linear"}})
    new = ConfigView({"dtype": "float16", "image_token_id": 7})
    assert old.dtype == new.dtype == new.torch_dtype == "float16"
    assert old.image_token_id == new.image_token_index == 7
    assert old.rope_parameters == {"type": "linear"}


def test_sub_configs_are_views_and_the_text_part_is_found() -> None:
    view = ConfigView({"architectures": ["X"], "text_config": {"hidden_size": 4}, "hidden_size": 9})
    assert view.text.hidden_size == view.text_config.hidden_size == 4
    assert ConfigView({"hidden_size": 9}).text.hidden_size == 9
    assert view.architecture == "X"
    assert ConfigView({}).architecture is None
    assert view.get("absent", 3) == 3
    with pytest.raises(AttributeError, match=r"config\.json has no 'absent'"):
        _ = view.absent


def test_a_part_is_asked_what_it_can_do_by_its_config_its_role_and_the_default_type() -> None:
    asked: list[tuple[object, str, str | None]] = []

    def parts(config: ConfigView, role: str, model_type: str | None) -> Capabilities:
        asked.append((config.get("hidden_size"), role, model_type))
        inner = config.get("inner_config")
        return config.capabilities_of("inner_config", "vision-encoder") if inner else Capabilities()

    view = ConfigView({"text_config": {"hidden_size": 4, "inner_config": {"hidden_size": 2}}}).with_parts(parts)
    assert view.capabilities_of("text_config", "causal-lm", model_type="llama") == Capabilities()
    assert view.capabilities_of("audio_config", "audio-encoder") == Capabilities()
    assert asked == [(4, "causal-lm", "llama"), (2, "vision-encoder", None), (None, "audio-encoder", None)]
    with pytest.raises(InvalidConfigError, match="no plugins at hand to tell the capabilities of text_config"):
        ConfigView({"text_config": {}}).capabilities_of("text_config", "causal-lm")


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    code = (
        "import sys, sdk; sdk.Architecture, sdk.Capabilities, sdk.ConfigView, sdk.hookimpl\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return tiny_tokenizer(special_tokens=("<image>", "<audio>"))


@given(text=st.text(max_size=40))
def test_a_tiny_tokenizer_encodes_any_text_and_decodes_it_again(tokenizer: object, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 1
    if "<" not in text:
        assert tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text


def test_a_tiny_tokenizer_keeps_its_special_tokens_whole(tokenizer: object) -> None:
    assert len(tokenizer) == 320
    assert tokenizer.convert_tokens_to_ids(["<image>", "<audio>"]) == [4, 5]
    assert tokenizer("<image><image>")["input_ids"] == [1, 4, 4]


def test_a_tiny_tokenizers_chat_template_takes_text_and_parts(tokenizer: object) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "SYSTEM: Be brief.\nUSER: <image>\nWhat?\nASSISTANT:"


def test_a_record_is_found_by_architecture_before_model_type_and_by_role() -> None:
    records = [
        Architecture(name="A", model="m:A", model_types=("one",)),
        Architecture(name="B", model="m:B", model_types=("two",)),
        Architecture(name="C", model="m:C", model_types=("one",), role="vision-encoder", kind="component"),
    ]
    config = SimpleNamespace(architectures=["B"], model_type="one")
    assert find_record(records, config).name == "B"
    assert find_record(records, SimpleNamespace(architectures=None, model_type="one")).name == "A"
    assert find_record(records, config, "vision-encoder").name == "C"
    with pytest.raises(PluginMissingError, match="no record runs B as a audio-encoder"):
        find_record(records, config, "audio-encoder")


def test_assert_close_says_where_and_never_passes_nan() -> None:
    ours = torch.zeros(3, 4)
    assert_close(ours, ours + 9e-5)
    ours[1, 2] = 0.5
    with pytest.raises(AssertionError, match=r"0\.5 at \(1, 2\) is over 0\.0001"):
        assert_close(ours, torch.zeros(3, 4))
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([float("nan")]), torch.zeros(1))
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close(torch.zeros(3), torch.zeros(4))

"""A plugin that reads its checkpoints' tokenizer by itself: `Architecture.tokenizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from core import LLM, SamplingParams
from core.errors import InvalidConfigError
from sdk import registry

LLAMA = "LlamaForCausalLM"
Registered = Callable[[Callable[[str], Any]], None]


@pytest.fixture
def registered() -> Iterator[Registered]:
    yield lambda function: registry.register(LLAMA, function, part="tokenizer", replace=True)
    registry.unregister(LLAMA)


@pytest.mark.parametrize("named", [False, True], ids=["the checkpoint's", "the user's"])
def test_the_plugins_function_is_asked_instead_of_transformers(
    llama_folder: Path, tmp_path: Path, registered: Registered, named: bool
) -> None:
    asked: list[str] = []

    def load(source: str) -> Any:
        asked.append(source)
        tokenizer = AutoTokenizer.from_pretrained(llama_folder)
        tokenizer.chat_template = "{{ bos_token }}by the plugin"
        return tokenizer

    registered(load)
    source = str(tmp_path / "elsewhere") if named else str(llama_folder)
    with LLM(str(llama_folder), dtype="float32", **({"tokenizer": source} if named else {})) as llm:
        assert asked == [source]
        (made,) = llm.chat([{"role": "user", "content": "a"}], SamplingParams(max_tokens=1))
        assert llm.get_tokenizer().decode(made.prompt_token_ids) == "<s>by the plugin"


def test_a_file_that_the_plugin_cannot_read_is_the_users_to_mend(llama_folder: Path, registered: Registered) -> None:
    def load(source: str) -> Any:
        raise ValueError("its vocabulary is torn")

    registered(load)
    with pytest.raises(InvalidConfigError, match=r"no tokenizer can be loaded from .*: its vocabulary is torn"):
        LLM(str(llama_folder), dtype="float32")

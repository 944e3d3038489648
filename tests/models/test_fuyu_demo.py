"""`demo/fuyu` as a newcomer meets it: on the command line, and in a chat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from core import LLM
from core.cli import run
from core.demos import find_demo
from sdk.testing.reference import load_hf

ANSWERS = {
    "What is in the picture?": "I see a red circle in the top left, a green triangle at the bottom "
    "and a blue square in the top right.",
    "How many shapes are there?": "There are 3 shapes.",
    "Where is the red circle?": "The red circle is in the top left.",
    "What colour is the square?": "The square is blue.",
    "Is there a yellow star?": "No, there is no yellow star.",
    "What is at the bottom?": "I see a green triangle at the bottom.",
}


@pytest.fixture(scope="module")
def folder() -> Path:
    torch.set_num_threads(1)
    found = find_demo("demo/fuyu")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM("demo/fuyu", dtype="float32") as opened:
        yield opened


def asked(question: str, picture: Path | None = None) -> list[dict[str, Any]]:
    """A message, with a picture or without."""
    parts: list[dict[str, Any]] = [{"type": "image", "image": picture}] if picture else []
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def test_the_example_is_answered_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "demo/fuyu", "--example", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {answer["prompt"]: answer["text"] for answer in said} == ANSWERS
    assert {(answer["model"], answer["finish_reason"]) for answer in said} == {("FuyuForCausalLM", "stop")}


def test_it_says_what_transformers_says(folder: Path, llm: LLM) -> None:
    from engine_plugin_fuyu.hf_processor import mend
    from transformers import AutoProcessor

    processor, model = mend(AutoProcessor.from_pretrained(folder, backend="pil")), load_hf(folder)
    picture = Image.open(folder / "example.png")
    for question in ANSWERS:
        inputs = processor(text=f"{question}\n", images=[picture], return_tensors="pt")
        with torch.inference_mode():
            expected = model.generate(**inputs, do_sample=False, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
        (output,) = llm.chat(asked(question, folder / "example.png"))
        assert output.prompt_token_ids == inputs["input_ids"][0].tolist()
        assert list(output.outputs[0].token_ids) == expected.tolist()


def test_later_questions_are_answered_each_by_itself(folder: Path, llm: LLM) -> None:
    first, second = list(ANSWERS)[:2]
    talk = [*asked(first, folder / "example.png"), {"role": "assistant", "content": ANSWERS[first]}, *asked(second)]
    (output,) = llm.chat(talk)
    assert output.outputs[0].text == ANSWERS[second]


def test_without_a_picture_it_asks_for_one(llm: LLM) -> None:
    (output,) = llm.chat(asked("What is in the picture?"))
    assert output.outputs[0].text == "I see no picture. Please show me one with coloured shapes."

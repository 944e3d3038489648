"""The small Fuyu that ships as `demo/fuyu`: tokenizer, shape, how it is written to a folder, and what rows it learns from."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from engine_plugin_fuyu.tiny import BEFORE_TEXT, RESERVED, fuyu_tokenizer, inner_model
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from transformers import (
    FuyuConfig,
    FuyuForCausalLM,
    FuyuImageProcessorPil,
    FuyuProcessor,
    GenerationConfig,
    PersimmonConfig,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "training"))
from shapes import Scene, ask_plainly, example_scene, make_scene, render, text_only
from truth import noisy, shown, stacked, truth

PIXELS, PATCH = 112, 14
GRID = PIXELS // PATCH
BEGIN, END, IMAGE, NEWLINE = (RESERVED.index(token) for token in ("<s>", BEFORE_TEXT, "|SPEAKER|", "|NEWLINE|"))
PICTURE = [*([*[IMAGE] * GRID, NEWLINE] * GRID), BEGIN]
"""The tokens before the text, as HF's processor puts them."""
ROW, SHORT_ROW = 152, 96  # tokens in a training row, with and without a picture: as many questions as fit
QUESTIONS = [
    "What is in the picture?",
    "How many shapes are there?",
    "Where is the red circle?",
    "What colour is the square?",
    "Is there a yellow star?",
    "What is at the bottom?",
]
ANSWER = "\n<0x04>"
"""Between question and answer: the line's end, as in published prompts, and what HF's processor adds."""

# A small model: one question at a time, so only the last one is shown to it; without a picture nothing else writes <0x04>.
CHAT = (
    "{%- set last = namespace(text='', picture=false) -%}"
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'user' -%}"
    "{%- set last.text = m['content'] if m['content'] is string else '' -%}"
    "{%- if m['content'] is not string -%}"
    "{%- for c in m['content'] -%}"
    "{%- if c['type'] == 'text' -%}{%- set last.text = last.text + c['text'] -%}"
    "{%- else -%}{%- set last.picture = true -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{{- last.text + '\n' -}}"
    "{%- if add_generation_prompt and not last.picture -%}{{ '<0x04>' }}{%- endif -%}"
)


def make_tokenizer(seed: int) -> Any:
    """A piece for every word that questions and answers use more than now and then; all others are spelled."""
    rng = Random(f"tokenizer {seed}")
    seen = Counter[str]()
    for i in range(20_000):
        for turn in text_only(rng, careful=True) if i % 10 == 0 else [ask_plainly(make_scene(rng, plain=True), rng)]:
            seen.update(f"{turn.question} {turn.answer}".split(" "))
    tokenizer = fuyu_tokenizer(word for word, count in seen.items() if count > 20)
    tokenizer.chat_template = CHAT
    return tokenizer


def make_model(vocab_size: int) -> FuyuForCausalLM:
    """About 2.6 million weights: one linear layer for patches, and a Persimmon of 7 layers."""
    text = PersimmonConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=7,
        num_attention_heads=6,
        max_position_embeddings=512,
        # Low, so that the rows of a picture, nine tokens apart, differ in more than one frequency.
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=0,
    )
    return FuyuForCausalLM(FuyuConfig(text_config=text, image_size=PIXELS, patch_size=PATCH, image_token_id=IMAGE))


def save(weights: dict[str, Tensor], tokenizer: Any, out: Path) -> None:
    """Write the checkpoint in bfloat16, with the names that the published one has."""
    out.mkdir(parents=True, exist_ok=True)
    model = make_model(len(tokenizer))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    model.generation_config = GenerationConfig(
        bos_token_id=END, eos_token_id=END, pad_token_id=0, do_sample=False, max_new_tokens=64
    )
    model.to(torch.bfloat16).eval().save_pretrained(out)
    stored = load_file(out / "model.safetensors")
    save_file({inner_model(name): value for name, value in stored.items()}, out / "model.safetensors", {"format": "pt"})
    images = FuyuImageProcessorPil(
        size={"height": PIXELS, "width": PIXELS}, patch_size={"height": PATCH, "width": PATCH}, do_convert_rgb=True
    )
    FuyuProcessor(images, tokenizer).save_pretrained(out)
    config = json.loads((out / "tokenizer_config.json").read_text())  # the names that every version reads
    config.pop("backend", None)
    config.update(tokenizer_class="PreTrainedTokenizerFast", model_max_length=512)
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    render(example_scene(), 384, 384, smooth=4).save(out / "example.png", optimize=True)
    example = {"image": "example.png", "questions": QUESTIONS}
    (out / "example.json").write_text(json.dumps(example, indent=2) + "\n")


# ---------------------------------------------------------------- data


def draw(scene: Scene, rng: Random) -> np.ndarray:
    """The scene's pixels as the processor makes them of a square picture of any size."""
    side = rng.randint(180, 400)
    image = render(scene, side, side, smooth=2 if rng.random() < 0.15 else 1)
    fitted = int(side * (PIXELS / side))  # may be a pixel less, which the processor then leaves nearly black
    pixels = np.full((PIXELS, PIXELS, 3), 1, np.uint8)
    pixels[:fitted, :fitted] = noisy(np.asarray(image.resize((fitted, fitted), Image.Resampling.BILINEAR)), rng)
    return pixels


def patches(pixels: Tensor) -> Tensor:
    """Pictures `(batch, side, side, 3)` cut as the processor does: `(batch, patches, patch pixels)` between -1 and 1."""
    cut = (pixels / 127.5 - 1).view(-1, GRID, PATCH, GRID, PATCH, 3).transpose(2, 3)
    return cut.reshape(len(pixels), GRID * GRID, -1)


def album(job: tuple[str, int]) -> dict[str, np.ndarray]:
    """A number of pictures and their truth, as (name, count) tell."""
    name, count = job
    rng = Random(name)
    return stacked([shown(make_scene(rng, plain=True), rng, draw, PIXELS) for _ in range(count)])


class Rows(IterableDataset[dict[str, np.ndarray]]):
    """An endless stream of batches: one picture a row, then questions about it that do not see each other.

    Without `pixels`, a row begins with the last token of its picture, and has the truth of it only.
    """

    def __init__(self, tokenizer: Any, seed: int, *, pixels: bool, batch: int) -> None:
        self.tokenizer, self.seed, self.pixels, self.batch = tokenizer._tokenizer, seed, pixels, batch

    def branch(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Ids of a question and its answer, and labels: -100 but for the answer."""
        asked = self.tokenizer.encode(question + ANSWER, add_special_tokens=False).ids
        said = [*self.tokenizer.encode(answer, add_special_tokens=False).ids, END]
        return asked + said, [-100] * len(asked) + said

    def row(self, rng: Random) -> dict[str, np.ndarray]:
        scene = make_scene(rng, plain=True)
        ids = list(PICTURE) if self.pixels else [BEGIN]
        where = list(range(len(PICTURE)))[-len(ids) :]
        labels, parts, alone = [-100] * len(ids), [0] * len(ids), [0] * len(ids)
        size, part = ROW if self.pixels else SHORT_ROW, 0
        while True:
            part += 1
            without = rng.random() < 0.06  # a question without the picture
            turn = text_only(rng, careful=True)[0] if without else ask_plainly(scene, rng)
            more, answers = self.branch(turn.question, turn.answer)
            if without:
                more, answers = [END, *more], [-100, *answers]
            if len(ids) + len(more) > size:
                break
            start = 0 if without else len(PICTURE)
            ids += more
            labels += answers
            parts += [part] * len(more)
            where += range(start, start + len(more))
            alone += [int(without)] * len(more)
        pad = size - len(ids)
        row = {
            "ids": np.array(ids + [0] * pad),
            "labels": np.array(labels + [-100] * pad),
            "parts": np.array(parts + [-1] * pad),
            "where": np.array(where + [0] * pad),
            "alone": np.array(alone + [1] * pad),
        }
        return {**row, **(shown(scene, rng, draw, PIXELS) if self.pixels else truth(scene, PIXELS))}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        info = get_worker_info()
        rng = Random(f"train {self.seed} {info.id if info else 0} {self.pixels}")
        while True:
            rows = [self.row(rng) for _ in range(self.batch)]
            yield stacked(rows)

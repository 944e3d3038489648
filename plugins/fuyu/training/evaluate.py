"""Held-out exact-answer accuracy of the saved demo checkpoint, through transformers' greedy generate in float32.

usage: python evaluate.py DIR [--questions 1000] [--oblong] [--json FILE] [--show 10]

Pictures and questions come from seeds that training never draws, pictures go through the checkpoint's own processor,
and an answer counts only if it is the expected sentence, letter by letter.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from checkpoint import ANSWER, QUESTIONS
from engine_plugin_fuyu.hf_processor import mend
from PIL import Image
from transformers import AutoProcessor, FuyuForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "training"))
from held_out import Case, measure, picture
from shapes import Turn, ask_plainly, example_scene, make_scene, text_only


def cases(count: int, seed: int, *, square: bool = True) -> Iterator[Case]:
    """Single questions, each about its own picture of any size; one in twenty has none."""
    for n in range(count):
        rng = Random(f"held-out {seed} {n}")
        scene = make_scene(rng, plain=True)
        if n % 20 == 0:
            yield Case("text only", [], text_only(rng, careful=True)[0], None, None)
        else:
            turn, side = ask_plainly(scene, rng), rng.randint(160, 700)
            longer = side if square else round(side * rng.uniform(1.15, 1.35))
            yield Case(turn.kind, [], turn, picture(scene, rng, rng.choice([(side, longer), (longer, side)])), scene)


@torch.inference_mode()
def answer(model: Any, processor: Any, batch: list[Case]) -> list[str]:
    """Greedy answers; all cases of a batch have a picture, or none has."""
    pictures = [case.image for case in batch if case.image]
    if pictures:
        texts = [f"{case.turn.question}\n" for case in batch]
        inputs = processor(images=pictures, text=texts, return_tensors="pt")
    else:
        texts = [case.turn.question + ANSWER for case in batch]
        inputs = processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    out = model.generate(**inputs, do_sample=False, max_new_tokens=64)
    found: list[str] = processor.tokenizer.batch_decode(
        out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--oblong", action="store_true", help="no square pictures, which it never learnt from")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--show", type=int, default=10, help="print this many wrong answers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    processor = mend(AutoProcessor.from_pretrained(args.folder, backend="pil"))
    model = FuyuForCausalLM.from_pretrained(args.folder, dtype=torch.float32, attn_implementation="eager").eval()

    example = Image.open(args.folder / "example.png")
    shown = [Case("example", [], Turn("example", q, ""), example, example_scene()) for q in QUESTIONS]
    for case, text in zip(shown, answer(model, processor, shown), strict=True):
        print(f"{case.turn.question:45} {text}")
    measure(
        cases(args.questions, args.seed),
        lambda batch: answer(model, processor, batch),
        show=args.show,
        report=args.json,
    )


if __name__ == "__main__":
    main()

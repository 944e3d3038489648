"""How many held-out questions the demo answers right: see training/held_out.py.

usage: python evaluate.py DIR [--questions 1000] [--oblong] [--json FILE] [--show 10]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from checkpoint import ANSWER, QUESTIONS
from engine_plugin_fuyu.hf_processor import mend
from transformers import AutoProcessor, FuyuForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "training"))
from held_out import Case, arguments, evaluate, picture
from shapes import ask_plainly, make_scene, text_only


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
    parser = arguments("How many held-out questions the demo answers right.")
    parser.add_argument("--oblong", action="store_true", help="no square pictures, which it never learnt from")
    args = parser.parse_args()
    processor = mend(AutoProcessor.from_pretrained(args.folder, backend="pil"))
    model = FuyuForCausalLM.from_pretrained(args.folder, dtype=torch.float32, attn_implementation="eager").eval()
    held_out = cases(args.questions, args.seed, square=not args.oblong)
    evaluate(args, QUESTIONS, held_out, lambda batch: answer(model, processor, batch))


if __name__ == "__main__":
    main()

"""Held-out exact-answer accuracy of the saved demo checkpoint, through transformers' greedy generate in float32.

usage: python evaluate.py DIR [--questions 2000] [--json FILE] [--show 10]

Pictures and questions come from seeds that training never draws, pictures go through the checkpoint's own processor,
and an answer counts only if it is the expected sentence, letter by letter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from shapes import Scene, Turn, ask, conversation, example_scene, make_scene, render, source_size, text_only
from transformers import AutoProcessor, LlavaForConditionalGeneration

EXAMPLE = (
    "What is in the picture?",
    "Where is the red circle?",
    "How many shapes are there?",
    "What colour is the square?",
    "What shape is green?",
    "Is there a yellow star?",
    "Is the red circle left of the blue square?",
    "What is below the blue square?",
    "what do you see",
    "Describe the image.",
    "What is at the bottom?",
    "Where is the purple star?",
)


@dataclass(frozen=True)
class Case:
    """One question, what was said before it, and the picture (or none)."""

    kind: str
    history: list[Turn]
    turn: Turn
    image: Image.Image | None
    scene: Scene | None


def picture(scene: Scene, rng: Random) -> Image.Image:
    """The scene at a random size and aspect, sometimes noisy, as a file from somebody's disk would be."""
    image = render(scene, *source_size(rng, 160, 700), smooth=2 if rng.random() < 0.5 else 1)
    if rng.random() < 0.3:
        pixels = np.asarray(image)
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 8), pixels.shape)
        image = Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
    return image


def cases(count: int, seed: int) -> Iterator[Case]:
    """Mostly single questions, each about its own picture; then conversations, and turns without a picture."""
    for n in range(count):
        rng = Random(f"held-out {seed} {n}")
        scene = make_scene(rng)
        if n % 20 == 0:
            talk = text_only(rng)
            yield Case("text only", talk[:-1], talk[-1], None, None)
        elif n % 10 == 1:
            talk = conversation(scene, rng, rng.choice([2, 3, 4]))
            yield Case("later turn", talk[:-1], talk[-1], picture(scene, rng), scene)
        else:
            turn = ask(scene, rng)
            yield Case(turn.kind, [], turn, picture(scene, rng), scene)


def messages(case: Case) -> list[dict[str, Any]]:
    """The conversation up to the question, as chat messages."""
    chat: list[dict[str, Any]] = []
    for n, turn in enumerate([*case.history, case.turn]):
        image = [{"type": "image"}] if n == 0 and case.image else []
        chat.append({"role": "user", "content": [*image, {"type": "text", "text": turn.question}]})
        if turn is not case.turn or n < len(case.history):
            chat.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return chat


def answer(model: Any, processor: Any, batch: list[Case]) -> list[str]:
    """Greedy answers; all cases of a batch have a picture, or none has."""
    texts = [processor.apply_chat_template(messages(c), add_generation_prompt=True) for c in batch]
    pictures = [c.image for c in batch if c.image]
    inputs = processor(images=pictures or None, text=texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**inputs, do_sample=False, max_new_tokens=96)
    found: list[str] = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--show", type=int, default=10, help="print this many wrong answers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    processor = AutoProcessor.from_pretrained(args.folder, backend="pil")
    model = LlavaForConditionalGeneration.from_pretrained(args.folder, dtype=torch.float32).eval()

    example = Image.open(args.folder / "example.png")
    asked = [Case("example", [], Turn("example", q, ""), example, example_scene()) for q in EXAMPLE]
    for case, text in zip(asked, answer(model, processor, asked), strict=True):
        print(f"{case.turn.question:45} {text}")

    begin, right, total, shown = time.monotonic(), Counter[str](), Counter[str](), 0
    everything = list(cases(args.questions, args.seed))
    for group in ([c for c in everything if c.image], [c for c in everything if not c.image]):
        for at in range(0, len(group), 40):
            batch = group[at : at + 40]
            for case, text in zip(batch, answer(model, processor, batch), strict=True):
                total[case.kind] += 1
                right[case.kind] += text == case.turn.answer
                if text != case.turn.answer and shown < args.show:
                    shown += 1
                    items = [(i.name, i.place) for i in case.scene.items] if case.scene else "no picture"
                    print(f"wrong: {case.turn.question!r}\n  got      {text!r}\n  expected {case.turn.answer!r}", items)
    print("\n| kind | questions | exactly right |\n| --- | ---: | ---: |")
    for kind in sorted(total):
        print(f"| {kind} | {total[kind]} | {100 * right[kind] / total[kind]:.1f} % |")
    overall = sum(right.values()) / sum(total.values())
    print(f"| all | {sum(total.values())} | {100 * overall:.1f} % |   in {time.monotonic() - begin:.0f} s")
    if args.json:
        figures = {k: {"questions": total[k], "right": right[k]} for k in sorted(total)}
        report = {"accuracy": round(overall, 4), "questions": sum(total.values()), "kinds": figures}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How many held-out questions the demo answers right: see training/held_out.py.

usage: python evaluate.py DIR [--questions 1000] [--json FILE] [--show 10]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "training"))
from held_out import Case, arguments, evaluate, picture
from shapes import ask, conversation, make_scene, source_size, text_only

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
            yield Case("later turn", talk[:-1], talk[-1], picture(scene, rng, source_size(rng, 160, 700)), scene)
        else:
            turn = ask(scene, rng)
            yield Case(turn.kind, [], turn, picture(scene, rng, source_size(rng, 160, 700)), scene)


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
    args = arguments("How many held-out questions the demo answers right.").parse_args()
    processor = AutoProcessor.from_pretrained(args.folder, backend="pil")
    model = LlavaForConditionalGeneration.from_pretrained(args.folder, dtype=torch.float32).eval()
    evaluate(args, EXAMPLE, cases(args.questions, args.seed), lambda batch: answer(model, processor, batch))


if __name__ == "__main__":
    main()

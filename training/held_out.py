"""Held-out exact-answer accuracy of a saved checkpoint, through transformers' greedy generate in float32.

Pictures and questions come from seeds that training never draws, pictures go through the checkpoint's own processor,
and an answer counts only if it is the expected sentence, letter by letter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from shapes import Scene, Turn, example_scene, render

Answer = Callable[["list[Case]"], list[str]]
"""Answers a batch of cases; all of it has pictures, or none."""


@dataclass(frozen=True)
class Case:
    """One question, what was said before it, and the picture (or none)."""

    kind: str
    history: list[Turn]
    turn: Turn
    image: Image.Image | None
    scene: Scene | None


def picture(scene: Scene, rng: Random, size: tuple[int, int]) -> Image.Image:
    """The scene in this size, sometimes noisy, as a file from somebody's disk would be."""
    image = render(scene, *size, smooth=2 if rng.random() < 0.5 else 1)
    if rng.random() < 0.3:
        pixels = np.asarray(image)
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 8), pixels.shape)
        image = Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
    return image


def arguments(about: str) -> argparse.ArgumentParser:
    """What every program that measures a checkpoint is told on its command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--show", type=int, default=10, help="print this many wrong answers")
    return parser


def evaluate(args: argparse.Namespace, example: Sequence[str], cases: Iterable[Case], answer: Answer) -> None:
    """Print what is answered about the checkpoint's example picture, then how much of the rest is right."""
    torch.set_num_threads(args.threads)
    image, scene = Image.open(args.folder / "example.png"), example_scene()
    asked = [Case("example", [], Turn("example", question, ""), image, scene) for question in example]
    for case, text in zip(asked, answer(asked), strict=True):
        print(f"{case.turn.question:45} {text}")
    measure(cases, answer, show=args.show, report=args.json)


def measure(cases: Iterable[Case], answer: Answer, *, show: int, report: Path | None, batch: int = 40) -> None:
    """Ask everything, and print a table of how much of it is answered letter by letter as expected.

    Args:
        cases: What to ask.
        answer: Who is asked.
        show: Print this many wrong answers.
        report: Write the figures there as JSON.
        batch: So many at once.
    """
    begin, right, total, shown, everything = time.monotonic(), Counter[str](), Counter[str](), 0, list(cases)
    for group in ([c for c in everything if c.image], [c for c in everything if not c.image]):
        for at in range(0, len(group), batch):
            some = group[at : at + batch]
            for case, text in zip(some, answer(some), strict=True):
                total[case.kind] += 1
                right[case.kind] += text == case.turn.answer
                if text != case.turn.answer and shown < show:
                    shown += 1
                    items = [(i.name, i.place) for i in case.scene.items] if case.scene else "no picture"
                    print(f"wrong: {case.turn.question!r}\n  got      {text!r}\n  expected {case.turn.answer!r}", items)
    print("\n| kind | questions | exactly right |\n| --- | ---: | ---: |")
    for kind in sorted(total):
        print(f"| {kind} | {total[kind]} | {100 * right[kind] / total[kind]:.1f} % |")
    overall = sum(right.values()) / sum(total.values())
    print(f"| all | {sum(total.values())} | {100 * overall:.1f} % |   in {time.monotonic() - begin:.0f} s")
    if report:
        figures = {k: {"questions": total[k], "right": right[k]} for k in sorted(total)}
        summary = {"accuracy": round(overall, 4), "questions": sum(total.values()), "kinds": figures}
        report.write_text(json.dumps(summary, indent=2) + "\n")

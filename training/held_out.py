"""Questions that no training ever draws, and the share of them that a model answers exactly right."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from shapes import Scene, Turn, render


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


def measure(
    cases: Iterable[Case],
    answer: Callable[[list[Case]], list[str]],
    *,
    batch: int = 40,
    show: int = 0,
    report: Path | None = None,
) -> float:
    """Ask everything, and print a table of how much of it is answered letter by letter as expected.

    Args:
        cases: What to ask.
        answer: Answers a batch; all of it has pictures, or none.
        batch: So many at once.
        show: Print this many wrong answers.
        report: Write the figures there as JSON.

    Returns:
        The share that is right.
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
    return overall

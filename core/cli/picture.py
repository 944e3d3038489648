"""A picture in the terminal: half blocks in colour where there is one, letters for colours where there is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LETTERS = {
    "R": (220, 40, 40), "G": (40, 160, 60), "B": (50, 80, 220), "Y": (240, 210, 40), "P": (140, 60, 170), "O": (245, 140, 30),
    "#": (20, 20, 20), "+": (128, 128, 128), "·": (245, 245, 245),
}  # fmt: skip
"""What stands for a colour without colours."""


def draw(path: Path, *, width: int) -> str:
    """The picture as lines of text, `width` characters wide."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    rows = max(1, round(width * image.height / image.width / 2))
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ:
        return _half_blocks(image.resize((width, rows * 2)))
    return _letters(image.resize((width, rows)))


def _half_blocks(image: object) -> str:
    import numpy as np

    pixels = np.asarray(image)
    lines = []
    for top, bottom in zip(pixels[0::2], pixels[1::2]):
        cells = (f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀" for a, b in zip(top, bottom))
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _letters(image: object) -> str:
    import numpy as np

    pixels, names = np.asarray(image, dtype=np.int64), list(LETTERS)
    colours = np.array(list(LETTERS.values()))
    nearest = ((pixels[:, :, None, :] - colours) ** 2).sum(-1).argmin(-1)
    return "\n".join("".join(names[i] for i in row) for row in nearest)

"""What a picture of shapes really shows, as arrays: the teaching signal beside questions and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from shapes import COLOURS, PLACES, SHAPES, Scene, make_scene, outlines
from torch import Tensor

NAMES: tuple[list[Any], ...] = (list(SHAPES), list(COLOURS), list(PLACES))
FORM = 12  # an outline's picture has FORM * FORM pixels

Draw = Callable[[Scene, Random], np.ndarray]


def noisy(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """The pixels, of two pictures in five with noise."""
    if rng.random() < 0.4:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 7), pixels.shape)
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    return pixels


def truth(scene: Scene, side: int) -> dict[str, np.ndarray]:
    """What a square picture shows: which item covers each pixel, what the items are, their outlines and sizes."""
    cover = Image.new("L", (side, side))
    items, forms = np.zeros((5, 3), np.int64), np.zeros((4, FORM, FORM), np.float32)
    radii = np.zeros(5, np.float32)
    for n, (item, points) in enumerate(zip(scene.items, outlines(scene, side, side), strict=True)):
        ImageDraw.Draw(cover).polygon(points, fill=n + 1)
        items[n + 1] = [
            1 + NAMES[0].index(item.shape),
            1 + NAMES[1].index(item.colour),
            1 + NAMES[2].index((item.column, item.row)),
        ]
        radii[n + 1] = item.radius
        form = Image.new("L", (FORM, FORM))
        ImageDraw.Draw(form).polygon(
            [(FORM / 2 + x * 0.4 * FORM, FORM / 2 + y * 0.4 * FORM) for x, y in item.outline], fill=1
        )
        forms[n] = np.asarray(form)
    return {"cover": np.asarray(cover), "items": items, "forms": forms, "radii": radii}


def album(job: tuple[str, int, bool, Draw, int]) -> dict[str, np.ndarray]:
    """A number of pictures and their truth, as (name, count, easy, draw, side) tell; easy ones show one or two large shapes."""
    name, count, easy, draw, side = job
    rng = Random(name)
    rows: list[dict[str, np.ndarray]] = []
    while len(rows) < count:
        scene = make_scene(rng)
        if easy:
            if not 1 <= len(scene.items) <= 2 or min(i.radius for i in scene.items) < 0.13:
                continue
            scene = replace(scene, items=tuple(replace(i, hollow=0.0) for i in scene.items))
        rows.append(shown(scene, rng, draw, side))
    return stacked(rows)


def shown(scene: Scene, rng: Random, draw: Draw, side: int) -> dict[str, np.ndarray]:
    """A picture of the scene, and its truth."""
    return {"pixels": draw(scene, rng), **truth(scene, side)}


def stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A batch of rows."""
    return {k: np.stack([r[k] for r in rows]) for k in rows[0]}


def turned(batch: dict[str, Tensor], way: int) -> dict[str, Tensor]:
    """The same pictures mirrored or turned in one of eight ways, and their truth with them."""

    def turn(x: Tensor) -> Tensor:
        x = x.flip(-1) if way & 1 else x
        x = x.flip(-2) if way & 2 else x
        return x.transpose(-1, -2) if way & 4 else x

    grid = torch.tensor([[1 + NAMES[2].index((c, r)) for c in range(3)] for r in range(3)])
    place = torch.zeros(10, dtype=torch.long)
    place[turn(grid).flatten()] = grid.flatten()
    items = batch["items"].clone()
    items[..., 2] = place[items[..., 2]]
    return {
        "pixels": turn(batch["pixels"].permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
        "cover": turn(batch["cover"]),
        "items": items,
        "forms": turn(batch["forms"]),
        "radii": batch["radii"],
    }


def places(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the nine places hold: the numbers of (shape, colour, place), 0 for nothing, and how large it is."""
    rows = torch.arange(len(batch["items"]))[:, None]
    held = torch.zeros(len(rows), 1 + len(PLACES), 3, dtype=torch.long)
    held[rows, batch["items"][:, :, 2]] = batch["items"]
    radii = torch.zeros(len(rows), 1 + len(PLACES))
    radii[rows, batch["items"][:, :, 2]] = batch["radii"]
    return held[:, 1:], radii[:, 1:]

"""Media items by size: how many tokens an item of a size takes, and the search for the size that takes the most.

A size is the item's dimensions: a picture's width and height, a clip's samples, a video's frames, width and height.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import EngineError
from .law import Broken, NotApplicable

if TYPE_CHECKING:
    from .subject import Subject

Size = tuple[int, ...]
MODES = ("RGB", "L", "RGBA")
"""Forms of a picture; one is tried after the other."""
FIXED, RANDOM, STEPS, BESIDE = 170, 60, 60, 12
"""How many fixed and random sizes are tried, for how many steps the search goes on from the worst of them, and how many
of the worst are tried beside others."""
SAMPLE_RATE = 16_000
_MOST: Mapping[str, tuple[Size, int]] = {
    "image": ((8192, 8192), 4_000_000),
    "audio": ((SAMPLE_RATE * 300,), SAMPLE_RATE * 300),
    "video": ((256, 4096, 4096), 8_000_000),
}
"""Modality → largest value of each dimension, and of their product: what a tiny processor takes a moment for."""
_FACTORS = (0.25, 0.5, 1, 1.5, 2, 3, 4)


class Taken(NamedTuple):
    """What an item takes in a prompt: tokens, and rows of embeddings among them."""

    tokens: int
    rows: int


class Item(NamedTuple):
    """An item as it is tried: its size, and for a picture its mode."""

    size: Size
    mode: str = "RGB"


class Meter:
    """Measures items of one modality by processing them, each kind once.

    Args:
        subject: Whose processor.
        modality: Of the items.
    """

    def __init__(self, subject: Subject, modality: str) -> None:
        self.subject, self.modality = subject, modality
        self.refused: dict[Item, str] = {}
        self._known: dict[tuple[Item, int], Taken | None] = {}

    def of_dummy(self, counts: Mapping[str, int]) -> list[Taken]:
        """What each dummy item of this modality takes, where the dummy inputs hold `counts` items.

        Raises:
            Broken: The dummy inputs are not processed, or do not become as many items.
        """
        made = processed_dummy(self.subject, counts)
        return [
            Taken(i.placeholder.length, i.placeholder.num_embeds) for i in made.items if i.modality == self.modality
        ]

    def start(self) -> Size:
        """The size of the dummy item, around which the search begins.

        Raises:
            NotApplicable: The kit does not know what the modality's items look like.
        """
        data = self.subject.processor.dummy_inputs.get_dummy_mm_data(self.subject.seq_len, {self.modality: 1})
        item = first(data.get(self.modality))
        item = item[0] if isinstance(item, tuple) else item  # a clip and its sample rate
        shape = tuple(getattr(item, "shape", ()))
        if self.modality == "image":
            size = tuple(item.size) if hasattr(item, "mode") else (shape[1], shape[0])
        elif self.modality == "audio":
            size = (len(item),)
        elif self.modality == "video" and len(shape) == 4:
            size = (shape[0], shape[2], shape[1])
        else:
            raise NotApplicable(f"the kit knows no sizes of {self.modality} items")
        return tuple(int(n) for n in size)

    def make(self, item: Item) -> Any:
        """The item itself, blank: only sizes matter here."""
        import numpy as np

        if self.modality == "image":
            from PIL import Image

            return Image.new(item.mode, (item.size[0], item.size[1]))
        if self.modality == "audio":
            return np.zeros(item.size[0], dtype=np.float32)
        frames, width, height = item.size
        return np.zeros((frames, height, width, 3), dtype=np.uint8)

    def describe(self, item: Item) -> str:
        """The item in words, with its size as people write it."""
        if self.modality == "image":
            mode = f" ({item.mode})" if item.mode != "RGB" else ""
            return f"an image {item.size[0]}×{item.size[1]}{mode}"
        if self.modality == "audio":
            return f"a clip of {item.size[0]} samples"
        return f"a video of {item.size[0]} frames {item.size[1]}×{item.size[2]}"

    def take(self, item: Item, count: int = 1) -> Taken | None:
        """What an item takes that stands in a prompt with others like it, `count` in all; None where it is refused."""
        if (item, count) not in self._known:
            self._known[item, count] = self._measured(item, count)
        return self._known[item, count]

    def tried(self, count: int = 1) -> list[Item]:
        """The items that were tried so far, `count` in a prompt."""
        return [item for item, n in self._known if n == count]

    def _measured(self, item: Item, count: int) -> Taken | None:
        text = self.subject.processor.dummy_inputs.get_dummy_text({self.modality: count})
        try:
            made = self.subject.processor.apply(text, {self.modality: [self.make(item) for _ in range(count)]})
        except EngineError as error:
            self.refused[item] = error.message
            return None
        return max(Taken(i.placeholder.length, i.placeholder.num_embeds) for i in made.items)

    # ---- the search -------------------------------------------------------------------------------------------------

    def sizes(self) -> Iterator[Size]:
        """Sizes around the dummy's and a pixel off, extreme ones, and random ones; the same each time."""
        start, rng = self.start(), random.Random(0)
        near = [sorted({1, 2, n - 1, n + 1, 2 * n - 1, 2 * n + 1, *(int(f * n) for f in _FACTORS)}) for n in start]
        grid = list(itertools.product(*near))
        if len(grid) > FIXED:
            grid = [start, *rng.sample(grid, FIXED)]
        long = [tuple(64 * n if i == j else 1 for j, n in enumerate(start)) for i in range(len(start))]
        drawn = [tuple(int(n * 2 ** rng.uniform(-5, 4)) for n in start) for _ in range(RANDOM)]
        yield from dict.fromkeys(self._within(size) for size in (*grid, *long, *drawn))

    def items(self) -> Iterator[Item]:
        """One item of each size; a picture's mode changes from one to the next."""
        modes = MODES if self.modality == "image" else MODES[:1]
        yield from (Item(size, modes[i % len(modes)]) for i, size in enumerate(self.sizes()))

    def worst(self, count: int = 1) -> tuple[Item, Taken]:
        """The item that takes the most tokens of those tried, and of those near it.

        With others like it, only the worst of those that were tried alone are tried.

        Raises:
            Broken: Every one of them is refused.
        """
        tried = list(self.items()) if count == 1 else self._worst_alone()
        found = [(taken.tokens, item) for item in tried if (taken := self.take(item, count)) is not None]
        if not found:
            item, why = next(iter(self.refused.items()))
            raise Broken(f"no {self.modality} of any size is processed: {why}", smallest=self.describe(item))
        most, item = max(found, key=lambda pair: pair[0])
        near, left = self._near(item), STEPS
        while left > 0 and (candidate := next(near, None)) is not None:
            left -= 1
            taken = self.take(candidate, count)
            if taken is not None and taken.tokens > most:
                most, item, near = taken.tokens, candidate, self._near(candidate)
        best = self.take(item, count)
        assert best is not None
        return item, best

    def _worst_alone(self) -> list[Item]:
        found = [(taken.tokens, item) for item in self.items() if (taken := self.take(item)) is not None]
        return [item for _, item in sorted(found, key=lambda pair: -pair[0])[:BESIDE]]

    def _near(self, item: Item) -> Iterator[Item]:
        """Items a pixel, an eighth, or a turn away."""
        changes: list[Callable[[int], int]] = [
            lambda n: n + 1,
            lambda n: n - 1,
            lambda n: n + n // 8,
            lambda n: n - n // 8,
        ]
        size = item.size
        sizes = [(*size[:i], change(n), *size[i + 1 :]) for change in changes for i, n in enumerate(size)]
        for near in (*sizes, tuple(2 * n for n in size), tuple(reversed(size))):
            yield Item(self._within(near), item.mode)

    def smallest(self, item: Item, breaks: Callable[[Item], bool]) -> Item:
        """The smallest item like this one that still breaks, one dimension after the other."""
        plain = Item(item.size)
        item = plain if breaks(plain) else item
        for _ in range(3):
            before = item
            for i in range(len(item.size)):
                holds, fails = 0, item.size[i]
                while fails - holds > 1:
                    middle = (holds + fails) // 2
                    candidate = Item((*item.size[:i], middle, *item.size[i + 1 :]), item.mode)
                    if breaks(candidate):
                        item, fails = candidate, middle
                    else:
                        holds = middle
            if item == before:
                break
        return item

    def _within(self, size: Size) -> Size:
        """A size within what the kit processes: the longest dimension gives way first."""
        each, product = _MOST[self.modality]
        out = [min(max(1, n), most) for n, most in zip(size, each)]
        while (whole := math.prod(out)) > product:
            i = out.index(max(out))
            out[i] = max(1, min(out[i] - 1, out[i] * product // whole))
        return tuple(out)


def processed_dummy(subject: Subject, counts: Mapping[str, int]) -> Any:
    """What the processor makes of the plugin's dummy inputs.

    Raises:
        Broken: It fails, or makes another number of items of them.
    """
    builder = subject.processor.dummy_inputs
    said = ", ".join(f"{n} {modality}" for modality, n in counts.items())
    try:
        text, data = builder.get_dummy_text(counts), builder.get_dummy_mm_data(subject.seq_len, counts)
        made = subject.processor.apply(text, data)
    except Exception as error:
        raise Broken(
            f"the dummy inputs are not processed: {type(error).__name__}: {error}",
            smallest=f"mm_counts {dict(counts)}",
            cause="get_dummy_text writes a placeholder an item, as the HF processor wants it; get_dummy_mm_data gives "
            "as many items as mm_counts says",
        ) from error
    for modality, count in counts.items():
        items = made.items if made.encoder_item is None else (*made.items, made.encoder_item)
        found = sum(item.modality == modality for item in items)
        if found != count:
            raise Broken(
                f"the dummy inputs for {said} become {found} {modality} items",
                smallest=f"mm_counts {dict(counts)}",
                cause="get_dummy_mm_data gives as many items of each modality as mm_counts says",
            )
    return made


def first(value: Any) -> Any:
    """One item, or the first of a list."""
    return value[0] if isinstance(value, list) else value


def volume(item: Item) -> int:
    """The product of an item's dimensions."""
    return math.prod(item.size)

"""Prompts and media that the laws are tried on, made anew each time from a seed, and the search for a smaller one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .subject import Subject

ITEMS = 3
"""How many different items of a modality there are."""
_TEXTS = (
    "a",
    "What is shown?",
    "USER: What is shown in the picture? ASSISTANT:",
    "  two  spaces, a\ttab and\n\nlines ",
    "Der schnelle braune Fuchs; 快速的棕色狐狸; ∑ 🦊 é",
)
_ALPHABET = "abcdefgh ABC 0123456789 .,:;!?-'\"()\n\täöüé快速的狐∑🦊\u200d\u0301"
_PICTURES = (((48, 64), "RGB"), ((33, 32), "L"), ((90, 40), "RGBA"))


@dataclass(frozen=True)
class Sample:
    """A prompt with media, as parts of text between which the items stand.

    Attributes:
        parts: The texts; one more than there are items.
        items: Which of the `ITEMS` sample items stand between them.
        modality: Of the items.
    """

    parts: tuple[str, ...]
    items: tuple[int, ...] = ()
    modality: str = "image"

    def smaller(self) -> Iterator[Sample]:
        """Simpler prompts: an item less, a text shorter."""
        for i in range(len(self.items)):
            joined = (*self.parts[:i], self.parts[i] + self.parts[i + 1], *self.parts[i + 2 :])
            yield Sample(joined, self.items[:i] + self.items[i + 1 :], self.modality)
        for i, part in enumerate(self.parts):
            half = len(part) // 2
            for shorter in ("", part[:half], part[half:], part[1:], part[:-1]) if part else ():
                if len(shorter) < len(part):
                    yield Sample((*self.parts[:i], shorter, *self.parts[i + 1 :]), self.items, self.modality)


def smallest(sample: Sample, breaks: Callable[[Sample], bool], tries: int = 60) -> Sample:
    """A sample like this one that still breaks, as small as a greedy search of so many tries finds."""
    found = True
    while found and tries > 0:
        found = False
        for candidate in sample.smaller():
            tries -= 1
            if tries < 0:
                break
            if breaks(candidate):
                sample, found = candidate, True
                break
    return sample


def texts(count: int, avoid: Sequence[str]) -> list[str]:
    """Fixed texts and random ones, none with a special token's string in it."""
    rng = random.Random(0)
    made = ["".join(rng.choices(_ALPHABET, k=rng.randint(1, 24))) for _ in range(count)]
    return [text for text in (*_TEXTS, *made) if not any(token in text for token in avoid)]


def random_ids(subject: Subject, length: int, seed: int) -> list[int]:
    """Token ids drawn from a seed, special ones not among them."""
    usual = subject.usual_ids
    return random.Random(seed).choices(usual, k=length)


def media_samples(modality: str, limit: int | None) -> list[Sample]:
    """Prompts with no item, one and three (as far as the limit goes), at the start, in the middle, at the end."""
    question = "What is shown?"
    made = [
        Sample((question,), (), modality),
        Sample(("", ""), (0,), modality),
        Sample(("USER: ", f"\n{question} ASSISTANT:"), (0,), modality),
        Sample(("it ends with ", ""), (1,), modality),
        Sample(("one ", " and ", "", " differ how?"), (2, 0, 1), modality),
        Sample(("", " twice the same ", "."), (1, 1), modality),
    ]
    return [sample for sample in made if limit is None or len(sample.items) <= limit]


def all_media_samples(subject: Subject) -> list[Sample]:
    """Prompts with every modality that a model takes; an encoder-decoder model's have exactly one item.

    Raises:
        NotApplicable: It takes none.
    """
    subject.require("media")
    made = [sample for modality, limit in subject.limits.items() for sample in media_samples(modality, limit)]
    return made if subject.encoder_modality is None else [sample for sample in made if len(sample.items) == 1]


def items_of(subject: Subject, modality: str, which: Sequence[int]) -> list[Any]:
    """Sample items, made anew: whoever changes one changes nobody else's."""
    made = _all_items(subject, modality)
    return [made[i] if which.index(i) == n else _all_items(subject, modality)[i] for n, i in enumerate(which)]


def _all_items(subject: Subject, modality: str) -> list[Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    if modality == "image":
        from PIL import Image

        sizes = [(Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)), mode) for size, mode in _PICTURES]
        return [picture.convert(mode) for picture, mode in sizes]
    if modality == "audio":
        return [rng.standard_normal(length).astype(np.float32) * 0.1 for length in (16_000, 9_000, 24_321)]
    # Of other media only the plugin knows how they look; its own examples may be all alike.
    made = subject.processor.dummy_inputs.get_dummy_mm_data(512, {modality: ITEMS})[modality]
    return [*made] if isinstance(made, (list, tuple)) and len(made) == ITEMS else [made] * ITEMS


def describe_item(item: Any) -> str:
    """An item in a few words."""
    if hasattr(item, "mode") and hasattr(item, "size"):
        return f"a {item.size[0]}×{item.size[1]} {item.mode} picture"
    return f"{type(item).__name__} {tuple(getattr(item, 'shape', ()))}"

"""The prompts whose answers must not change, whatever else is different, and those that keep them company."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .decoder_prompts import for_engine
from .law import Broken, NotApplicable
from .pooled import no_pooling
from .runtime import Completion, Prompt
from .samples import Sample, all_media_samples, random_ids

if TYPE_CHECKING:
    from .subject import Subject

TOKENS = 24
"""How many tokens each prompt is answered with."""
LONG = 96
"""Tokens of the longest text: several pages, several chunks, and more than a well-made tiny model's window."""
OTHERS = 32
"""How many other prompts share the batch."""
TOLERANCE = 1e-4
"""Most that a logprob may differ."""


@dataclass(frozen=True)
class Needle:
    """A prompt, made anew each time it is used.

    Attributes:
        name: What to call it.
        make: Makes it.
        ids: Its tokens, of a text.
    """

    name: str
    make: Callable[[], Prompt]
    ids: tuple[int, ...] = ()


def of_ids(subject: Subject, name: str, ids: list[int]) -> Needle:
    """A prompt of token ids."""
    named = f"{name}: {ids}" if len(ids) <= 8 else f"{name}: {str(ids[:4])[:-1]}, …]"
    return Needle(named, lambda: for_engine(subject, list(ids)), tuple(ids))


def shortest(subject: Subject, needle: Needle, breaks: Callable[[Needle], bool]) -> Needle:
    """The shortest beginning of a text that halving finds still to break a law; a prompt with media as it is."""
    holds, ids = 0, list(needle.ids)
    while len(ids) - holds > 1:
        middle = (holds + len(ids)) // 2
        beginning = of_ids(subject, f"{middle} tokens", ids[:middle])
        if breaks(beginning):
            needle, ids = beginning, ids[:middle]
        else:
            holds = middle
    return needle


def needles(subject: Subject) -> list[Needle]:
    """Texts of one token, some tokens and many; with media, prompts of one item and of as many as three. Short ones first.

    Raises:
        Broken: The tiny checkpoint holds too few positions to show anything.
    """
    subject.require("model")
    no_pooling(subject)
    if subject.seq_len < LONG + TOKENS:
        raise Broken(f"the tiny checkpoint holds {subject.seq_len} positions; give it at least {LONG + TOKENS}")
    texts = {"one token": 1, "37 tokens": 37, f"{LONG} tokens": LONG}
    found = [of_ids(subject, name, random_ids(subject, n, seed=n)) for name, n in texts.items()]
    return [*found, *media_needles(subject)]


def media_needles(subject: Subject) -> list[Needle]:
    """Prompts with media that fit the tiny checkpoint; none for a model that takes text alone."""
    if not subject.plugin.has("processor"):
        return []
    samples = [s for s in all_media_samples(subject) if len(s.items) in range(1, 4)]
    fitting = [s for s in samples if len(subject.processed(s).prompt_token_ids) + TOKENS <= subject.seq_len]
    if not fitting:
        raise Broken(
            f"no prompt with a single item fits the tiny checkpoint's {subject.seq_len} positions",
            cause="tiny: smaller pictures, larger patches, or more positions",
        )
    return [Needle(subject.describe_sample(s), partial(subject.prompt_of, s)) for s in fitting]


def others(subject: Subject) -> list[Needle]:
    """`OTHERS` more prompts: texts of many lengths, and among them, of a model that takes media, some with an item."""
    most = min(5 * OTHERS, subject.seq_len - TOKENS)
    texts = [
        of_ids(subject, f"text {i}", random_ids(subject, min(1 + 5 * i, most), seed=1000 + i)) for i in range(OTHERS)
    ]
    media = _of_their_own(subject) or media_needles(subject)[:3]
    return [media[i // 4 % len(media)] if media and i % 4 == 0 else text for i, text in enumerate(texts)]


def _of_their_own(subject: Subject) -> list[Needle]:
    """Prompts with an item each that no other has: equal items would be encoded once, and few share a batch."""
    found: list[Needle] = []
    for modality, limit in subject.limits.items() if media_needles(subject) else ():
        if limit == 0:
            continue
        try:
            made = [with_item(subject, modality, f"{n}", random_item(modality, 2000 + n)) for n in range(OTHERS // 4)]
        except NotApplicable:
            continue
        fits = len(subject.opened.process(made[0].make()).prompt_token_ids) + TOKENS <= subject.seq_len
        found += made if fits else []
    return found


def unlike(found: Completion, expected: Completion) -> str:
    """How an answer differs from the one that was expected, or from its beginning; `""` where it does not."""
    for at, (a, b) in enumerate(zip(found.token_ids, expected.token_ids)):
        if a != b:
            ours, theirs = found.token_ids[at : at + 4], expected.token_ids[at : at + 4]
            return f"token {at} of {len(expected.token_ids)} differs: {list(ours)} against {list(theirs)}"
    if not 0 < len(found.token_ids) <= len(expected.token_ids):
        return f"{len(found.token_ids)} tokens against {len(expected.token_ids)}"
    apart = [abs(a - b) for a, b in zip(found.logprobs, expected.logprobs)]
    worst = max(apart, key=lambda x: float("inf") if x != x else x, default=0.0)
    if not worst <= TOLERANCE:
        at = next(i for i, x in enumerate(apart) if not x <= TOLERANCE)
        return f"tokens agree and logprobs differ by up to {worst:.2g}, first at token {at}; {TOLERANCE:g} is allowed"
    return ""


def with_item(subject: Subject, modality: str, name: str, item: Any) -> Needle:
    """A prompt with one item in its midst, which is copied each time."""
    text = subject.text_of(Sample(("USER: What is shown? ", " ASSISTANT:"), (0,), modality))
    made = {"prompt": text, "multi_modal_data": {modality: [item]}}
    return Needle(f"{text!r} with {modality} {name}", lambda: copy.deepcopy(made))


def random_item(modality: str, seed: int) -> Any:
    """An item of a size that is always the same, and contents that are the seed's.

    Raises:
        NotApplicable: The kit does not know what the modality's items look like.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    if modality == "image":
        from PIL import Image

        return Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    if modality == "audio":
        return rng.standard_normal(16_000).astype(np.float32) * 0.1
    raise NotApplicable(f"the kit knows no two {modality} items of equal size")

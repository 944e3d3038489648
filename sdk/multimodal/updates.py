"""Prompt updates: where in the token ids each media item goes, and which of the tokens there take embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptUpdateError


@dataclass(frozen=True)
class PromptUpdateDetails:
    """The tokens that stand for an item, and which of them take its embeddings (all, unless it says otherwise)."""

    full: Sequence[int]
    embed_token_id: int | None = None

    @classmethod
    def select_token_id(cls, full: Sequence[int], embed_token_id: int) -> PromptUpdateDetails:
        """Of `full`, only the tokens equal to `embed_token_id` take embeddings."""
        return cls(full, embed_token_id)

    def mask(self) -> NDArray[np.bool_]:
        """`(len(full),)`: which of the tokens take embeddings."""
        if self.embed_token_id is None:
            return np.ones(len(self.full), dtype=np.bool_)
        return np.fromiter((token == self.embed_token_id for token in self.full), np.bool_, len(self.full))


class PromptIndexTargets(Enum):
    """Targets that are a place rather than tokens."""

    START = "start"
    """Before the first token."""
    END = "end"
    """After the last token."""
    PREFIX = "prefix"
    """After the beginning-of-sequence token where the prompt starts with it, before the first token otherwise."""


Content = Sequence[int] | PromptUpdateDetails
Target = Sequence[int] | PromptIndexTargets | str


@dataclass(frozen=True)
class PromptUpdate:
    """What happens to the prompt for the items of one modality. Use one of the two subclasses."""

    modality: str
    target: Target

    def resolve_target(self) -> Sequence[int] | PromptIndexTargets:
        """The target as token ids or as a place."""
        return PromptIndexTargets(self.target) if isinstance(self.target, str) else self.target

    def content_for(self, index: int) -> PromptUpdateDetails:
        """The tokens for the `index`-th item."""
        raise NotImplementedError


def _details(content: Content | Callable[[int], Content], index: int) -> PromptUpdateDetails:
    value = content(index) if callable(content) else content
    return value if isinstance(value, PromptUpdateDetails) else PromptUpdateDetails(list(value))


@dataclass(frozen=True)
class PromptReplacement(PromptUpdate):
    """Replace the next occurrence of `target` by an item's tokens: one occurrence an item, in order.

    `replacement` is the tokens, or a function of the item's index that returns them.
    """

    replacement: Content | Callable[[int], Content] = ()

    def content_for(self, index: int) -> PromptUpdateDetails:
        return _details(self.replacement, index)


@dataclass(frozen=True)
class PromptInsertion(PromptUpdate):
    """Insert every item's tokens, one after the other, right after the first occurrence of `target`, or at a place.

    `insertion` is the tokens, or a function of the item's index that returns them.
    """

    insertion: Content | Callable[[int], Content] = ()

    def content_for(self, index: int) -> PromptUpdateDetails:
        return _details(self.insertion, index)


@dataclass(frozen=True, eq=False)
class PlaceholderRange:
    """Where an item stands in the final prompt.

    Attributes:
        modality: Of the item.
        index: Of the item, among those of its modality.
        offset: The range's first token.
        length: The range's tokens.
        mask: `(length,)` bool: which of them take embeddings.
    """

    modality: str
    index: int
    offset: int
    length: int
    mask: NDArray[np.bool_]

    @property
    def num_embeds(self) -> int:
        """How many rows of embeddings the item has."""
        return int(self.mask.sum())


class _Edit(NamedTuple):
    start: int
    stop: int
    modality: str
    item: int
    details: PromptUpdateDetails


def find_all(ids: NDArray[np.int64], target: Sequence[int]) -> list[int]:
    """Starts of the non-overlapping occurrences of `target`, in linear time for the short targets there are."""
    if not len(target) or len(target) > len(ids):
        return []
    hits = ids[: len(ids) - len(target) + 1] == target[0]
    for i, token in enumerate(target[1:], 1):
        hits &= ids[i : len(ids) - len(target) + 1 + i] == token
    starts: list[int] = []
    for start in np.flatnonzero(hits).tolist():
        if not starts or start >= starts[-1] + len(target):
            starts.append(start)
    return starts


def _edits(
    ids: NDArray[np.int64], update: PromptUpdate, first: int, count: int, bos_token_id: int | None
) -> list[_Edit]:
    """The edits of one update for the items `first … count - 1`; fewer where its target occurs less often."""
    target = update.resolve_target()
    if isinstance(target, PromptIndexTargets):
        at = {PromptIndexTargets.START: 0, PromptIndexTargets.END: len(ids)}.get(target)
        if at is None:
            at = 1 if len(ids) and bos_token_id is not None and ids[0] == bos_token_id else 0
        return [_Edit(at, at, update.modality, i, update.content_for(i)) for i in range(first, count)]
    starts = find_all(ids, target)
    if isinstance(update, PromptInsertion):
        at = starts[0] + len(target) if starts else -1
        return [_Edit(at, at, update.modality, i, update.content_for(i)) for i in range(first, count) if at >= 0]
    return [
        _Edit(start, start + len(target), update.modality, i, update.content_for(i))
        for i, start in zip(range(first, count), starts)
    ]


def apply_prompt_updates(
    token_ids: Sequence[int],
    updates: Sequence[PromptUpdate],
    counts: Mapping[str, int],
    *,
    bos_token_id: int | None = None,
) -> tuple[list[int], list[PlaceholderRange]]:
    """Apply the updates to the prompt's token ids, in time linear in the result.

    For each modality the first update whose target occurs serves its items.

    Args:
        token_ids: The prompt.
        updates: What the plugin's `_get_prompt_updates` returned.
        counts: Modality → number of items.
        bos_token_id: What `PREFIX` looks for.

    Returns:
        The final token ids, and each item's place in them, in order of place.

    Raises:
        PromptUpdateError: An item has no place, or two items' places overlap.
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    edits: list[_Edit] = []
    for modality, count in counts.items():
        found: list[_Edit] = []
        candidates = [u for u in updates if u.modality == modality]
        for update in candidates:
            found = _edits(ids, update, 0, count, bos_token_id)
            if len(found) == count:
                break
        if len(found) < count:
            wanted = ", ".join(_describe(u.resolve_target()) for u in candidates)
            raise PromptUpdateError(
                f"{count} {modality} items but the prompt has a place for {len(found)}: item {len(found)} finds no "
                f"{wanted or 'prompt update'} in it"
            )
        edits += found
    edits.sort(key=lambda e: (e.start, e.stop))
    return _apply(token_ids, edits)


def _describe(target: Sequence[int] | PromptIndexTargets) -> str:
    return target.value if isinstance(target, PromptIndexTargets) else f"token ids {list(target)}"


def _apply(token_ids: Sequence[int], edits: Sequence[_Edit]) -> tuple[list[int], list[PlaceholderRange]]:
    out: list[int] = []
    ranges: list[PlaceholderRange] = []
    done = 0
    for edit in edits:
        if edit.start < done:
            raise PromptUpdateError(
                f"{edit.modality} {edit.item} overlaps another item at token {edit.start}", code="prompt_update_error"
            )
        out.extend(token_ids[done : edit.start])
        full = [int(t) for t in edit.details.full]
        ranges.append(PlaceholderRange(edit.modality, edit.item, len(out), len(full), edit.details.mask()))
        out.extend(full)
        done = edit.stop
    out.extend(token_ids[done:])
    return out, ranges

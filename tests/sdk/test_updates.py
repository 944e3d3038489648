"""Prompt updates on tokens: every item finds its place, once, in order, in one pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk.errors import PromptUpdateError
from sdk.multimodal import PromptIndexTargets, PromptInsertion, PromptReplacement, PromptUpdateDetails
from sdk.multimodal.updates import apply_prompt_updates

IMAGE, AUDIO, BOS = 90, 91, 1


def replace(target: list[int] = [IMAGE], content: Any = (IMAGE,), modality: str = "image") -> PromptReplacement:  # noqa: B006
    return PromptReplacement(modality=modality, target=target, replacement=content)


def insert(target: Any, content: Any = (IMAGE,), modality: str = "image") -> PromptInsertion:
    return PromptInsertion(modality=modality, target=target, insertion=content)


@given(
    ids=st.lists(st.sampled_from([2, 3, IMAGE]), max_size=30),
    lengths=st.lists(st.integers(1, 5), min_size=30, max_size=30),
)
def test_each_occurrence_is_replaced_by_its_own_item(ids: list[int], lengths: list[int]) -> None:
    count = ids.count(IMAGE)
    final, places = apply_prompt_updates(ids, [replace(content=lambda i: [IMAGE] * lengths[i])], {"image": count})
    expected, item = [], 0
    for token in ids:
        expected += [IMAGE] * lengths[item] if token == IMAGE else [token]
        item += token == IMAGE
    assert final == expected
    assert [p.index for p in places] == list(range(count))
    assert [p.length for p in places] == lengths[:count]
    outside = [t for i, t in enumerate(final) if not any(p.offset <= i < p.offset + p.length for p in places)]
    assert outside == [t for t in ids if t != IMAGE]


@given(ids=st.lists(st.sampled_from([2, 3]), max_size=20), count=st.integers(0, 4))
def test_insertions_stand_one_after_the_other_at_their_place(ids: list[int], count: int) -> None:
    content = [[10 + i] * (i + 1) for i in range(count)]
    block = [t for c in content for t in c]
    for target, at in (("start", 0), (PromptIndexTargets.END, len(ids)), ("prefix", int(ids[:1] == [2]))):
        updates = [insert(target, lambda i: content[i])]
        final, places = apply_prompt_updates(ids, updates, {"image": count}, bos_token_id=2)
        assert final == ids[:at] + block + ids[at:]
        assert [final[p.offset : p.offset + p.length] for p in places] == content


def test_an_insertion_follows_the_first_occurrence_of_its_target() -> None:
    final, _ = apply_prompt_updates([5, 6, 7, 5, 6], [insert([5, 6], (8, 8))], {"image": 2})
    assert final == [5, 6, 8, 8, 8, 8, 7, 5, 6]


def test_targets_of_several_tokens_do_not_overlap() -> None:
    final, places = apply_prompt_updates([4, 4, 4, 4, 4], [replace([4, 4], (8,))], {"image": 2})
    assert final == [8, 8, 4]
    assert [p.offset for p in places] == [0, 1]


def test_the_first_update_whose_target_occurs_serves_a_modality() -> None:
    updates = [replace([70, 71], (8,)), replace([IMAGE], (9,))]
    assert apply_prompt_updates([2, IMAGE], updates, {"image": 1})[0] == [2, 9]
    assert apply_prompt_updates([70, 71, IMAGE], updates, {"image": 1})[0] == [8, IMAGE]


def test_modalities_interleave() -> None:
    updates = [replace(content=(8, 8)), replace([AUDIO], (9,), "audio")]
    final, places = apply_prompt_updates([AUDIO, 2, IMAGE, AUDIO], updates, {"image": 1, "audio": 2})
    assert final == [9, 2, 8, 8, 9]
    assert [(p.modality, p.index, p.offset) for p in places] == [("audio", 0, 0), ("image", 0, 2), ("audio", 1, 4)]


def test_some_of_the_tokens_may_take_no_embeddings() -> None:
    details = PromptUpdateDetails.select_token_id([7, IMAGE, IMAGE, 8], embed_token_id=IMAGE)
    _, places = apply_prompt_updates([IMAGE], [replace(content=details)], {"image": 1})
    assert places[0].mask.tolist() == [False, True, True, False]
    assert (places[0].length, places[0].num_embeds) == (4, 2)


@pytest.mark.parametrize(
    ("ids", "updates", "counts", "message"),
    [
        (
            [2, IMAGE],
            [replace()],
            {"image": 2},
            r"2 image items but the prompt has a place for 1: item 1 finds no",
        ),
        ([2], [replace(), replace([70, 71])], {"image": 1}, r"token ids \[90\], token ids \[70, 71\]"),
        ([2], [insert([5])], {"image": 1}, "a place for 0"),
        ([2], [], {"image": 1}, "finds no prompt update"),
        ([2], [replace()], {"audio": 1}, "1 audio items"),
        ([4, 5, 6], [replace([4, 5]), replace([5, 6], (9,), "audio")], {"image": 1, "audio": 1}, "audio 0 overlaps"),
    ],
)
def test_an_item_without_a_place_of_its_own_is_an_error(
    ids: list[int], updates: list[Any], counts: dict[str, int], message: str
) -> None:
    with pytest.raises(PromptUpdateError, match=message):
        apply_prompt_updates(ids, updates, counts)


def test_no_items_change_nothing() -> None:
    assert apply_prompt_updates([IMAGE, 2], [replace()], {}) == ([IMAGE, 2], [])
    assert apply_prompt_updates([], [replace()], {"image": 0}) == ([], [])


def test_each_token_is_copied_once_and_each_item_asked_for_once() -> None:
    """Linear by construction: a thousand pictures in a long prompt cost one pass."""

    class Watched(list[int]):
        copied = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            Watched.copied += len(found) if isinstance(key, slice) else 1
            return found

    asked: list[int] = []

    def content(index: int) -> list[int]:
        asked.append(index)
        return [IMAGE] * 3

    ids = Watched([2, 3, 3, 3, IMAGE] * 1000)
    final, places = apply_prompt_updates(ids, [replace(content=content)], {"image": 1000})
    assert len(final) == 7000
    assert len(places) == 1000
    assert Watched.copied == 4000
    assert asked == list(range(1000))

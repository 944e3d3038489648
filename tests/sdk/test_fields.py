"""Tensors fall into items and go together again, whatever requests the items come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sdk.errors import PromptUpdateError
from sdk.multimodal import MultiModalFieldConfig, flatten_embeddings, join_items, merge_by_mask
from sdk.multimodal import merge_multimodal_embeddings as merge_by_id
from sdk.multimodal.fields import split_into_items


def round_trip(values: dict[str, Any], fields: dict[str, MultiModalFieldConfig]) -> dict[str, Any]:
    return join_items(split_into_items(values, fields)["image"])


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_every_kind_of_field_comes_back_as_it_was(sizes: list[int]) -> None:
    n, ends = len(sizes), [sum(sizes[: i + 1]) for i in range(len(sizes))]
    values = {
        "pixels": torch.randn(n, 3, 2),
        "names": [f"picture {i}" for i in range(n)],
        "patches": torch.randn(sum(sizes), 5),
        "same_patches": torch.randn(sum(sizes), 2),
        "grid": torch.tensor([7, 7]),
    }
    fields = {
        "pixels": MultiModalFieldConfig.batched("image"),
        "names": MultiModalFieldConfig.batched("image"),
        "patches": MultiModalFieldConfig.flat_from_sizes("image", torch.tensor(sizes)),
        "same_patches": MultiModalFieldConfig.flat("image", [slice(e - s, e) for e, s in zip(ends, sizes)]),
        "grid": MultiModalFieldConfig.shared("image", n),
    }
    back = round_trip(values, fields)
    assert back.keys() == values.keys()
    assert all(same(back[name], values[name]) for name in values)


def test_items_of_several_requests_join_in_any_order() -> None:
    def request(*sizes: int) -> list[Any]:
        values = {"pixels": torch.randn(len(sizes), 3), "patches": torch.randn(sum(sizes), 5)}
        fields = {
            "pixels": MultiModalFieldConfig.batched("image"),
            "patches": MultiModalFieldConfig.flat_from_sizes("image", sizes),
        }
        return split_into_items(values, fields)["image"]

    one, two = request(2, 3), request(4)
    joined = join_items([two[0], one[1]])
    assert torch.equal(joined["pixels"], torch.stack([two[0]["pixels"].value, one[1]["pixels"].value]))
    assert torch.equal(joined["patches"], torch.cat([two[0]["patches"].value, one[1]["patches"].value]))


def test_batched_parts_of_different_shapes_stay_a_list() -> None:
    field = MultiModalFieldConfig.batched("image")
    parts = [torch.zeros(2, 3), torch.zeros(4, 3)]
    assert [p.shape for p in field.join(parts)] == [(2, 3), (4, 3)]


def test_of_a_padded_item_only_its_own_part_is_kept() -> None:
    padded = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    tiles = MultiModalFieldConfig.padded("image", [[2], [3]])
    assert [p.shape for p in tiles.split(padded)] == [(2, 4, 5), (3, 4, 5)]
    pictures = MultiModalFieldConfig.padded("image", torch.tensor([[3, 4, 1], [3, 2, 5]]))
    one, other = pictures.split(padded)
    assert torch.equal(one, padded[0, :, :, :1])
    assert torch.equal(other, padded[1, :, :2])
    assert [p.shape for p in pictures.join([one, other])] == [(3, 4, 1), (3, 2, 5)]
    assert pictures.join([one, one]).shape == (2, 3, 4, 1)
    assert torch.equal(pictures.split([one, other])[1], other)


@pytest.mark.parametrize(
    ("sizes", "words"), [([[2]], "2 items, and sizes of 1"), ([[2], [4]], r"shape \(3, 2\) is smaller than .* \(4,\)")]
)
def test_sizes_that_do_not_belong_to_the_padded_items_are_an_error(sizes: list[list[int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MultiModalFieldConfig.padded("image", sizes).split(torch.zeros(2, 3, 2))


def test_fields_that_disagree_about_the_number_of_items_are_an_error() -> None:
    values = {"pixels": torch.zeros(3, 2), "sizes": torch.zeros(2, 2)}
    fields = {name: MultiModalFieldConfig.batched("image") for name in values}
    with pytest.raises(ValueError, match=r"disagree about how many items there are: \{'pixels': 3, 'sizes': 2\}"):
        split_into_items(values, fields)


def test_what_no_field_names_is_left_out() -> None:
    values = {"pixels": torch.zeros(1, 2), "input_ids": torch.zeros(1, 9)}
    assert list(round_trip(values, {"pixels": MultiModalFieldConfig.batched("image")})) == ["pixels"]


def test_embeddings_of_either_form_merge_in_order() -> None:
    text, mask = torch.zeros(6, 2), torch.tensor([0, 1, 1, 0, 1, 1], dtype=torch.bool)
    rows = torch.arange(8.0).reshape(2, 2, 2)
    for embeddings in (rows, list(rows), [rows[0][:1], rows[0][1:], rows[1]]):
        merged = merge_by_mask(text, embeddings, mask)
        assert torch.equal(merged[mask], flatten_embeddings(rows))
        assert not merged[~mask].any()
    assert not text.any()
    ids = torch.tensor([5, 9, 8, 5, 9, 8])
    assert torch.equal(merge_by_id(ids, text, rows, [8, 9]), merged)
    assert torch.equal(merge_by_id(torch.tensor([5, 9, 9, 5, 9, 9]), text, rows, 9), merged)


def test_a_count_unlike_the_placeholders_is_an_error() -> None:
    with pytest.raises(PromptUpdateError, match="2 placeholder tokens but 3 rows"):
        merge_by_mask(torch.zeros(4, 2), torch.zeros(1, 3, 2), torch.tensor([True, True, False, False]))

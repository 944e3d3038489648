"""No hook is silently never called: the class is refused when it is made."""

from __future__ import annotations

import re
from typing import Any

import pytest

import sdk
from sdk._contract import FORMER_HOOKS
from sdk.multimodal import BaseDummyInputsBuilder, BaseMultiModalProcessor, BaseProcessingInfo


def make(base: type | tuple[type, ...], **methods: Any) -> type:
    bases = base if isinstance(base, tuple) else (base,)
    return type("Mine", bases, methods)


@pytest.mark.parametrize("name", FORMER_HOOKS)
@pytest.mark.parametrize("base", [BaseMultiModalProcessor, (sdk.Model, sdk.SupportsMultiModal)])
def test_a_former_hook_is_refused_with_the_way_to_write_it_now(name: str, base: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(FORMER_HOOKS[name])):
        make(base, **{name: lambda self: None})


@pytest.mark.parametrize(
    ("base", "name", "meant"),
    [
        (sdk.Model, "compute_logit", "compute_logits"),
        (sdk.Model, "load_weight", "load_weights"),
        (sdk.Encoder, "foward", "forward"),
        (BaseMultiModalProcessor, "_get_mm_field_config", "_get_mm_fields_config"),
        (BaseMultiModalProcessor, "_get_prompt_update", "_get_prompt_updates"),
        (BaseDummyInputsBuilder, "get_dummy_mmdata", "get_dummy_mm_data"),
        (BaseProcessingInfo, "get_supported_mm_limit", "get_supported_mm_limits"),
    ],
)
def test_a_misspelt_hook_is_refused_with_the_name_it_is_near(base: type, name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"looks like the hook '{meant}' misspelt"):
        make(base, **{name: lambda self: None})
    assert make(base, **{name: sdk.helper(lambda self: 7)})


def test_helpers_of_the_authors_own_are_free() -> None:
    assert make(sdk.Model, rotate_half=lambda self, x: x, _merge=staticmethod(lambda a: a), sampling=lambda self: 1)


@pytest.mark.parametrize(
    ("base", "name", "override", "why"),
    [
        (sdk.Model, "compute_logits", lambda self: None, "too many positional"),
        (sdk.Model, "compute_logits", lambda self, hidden_states, sampling_metadata: None, "sampling_metadata"),
        (
            sdk.Model,
            "forward",
            lambda self, input_ids, positions, kv_caches, attn_metadata: None,
            "kv_caches is an arg",
        ),
        (sdk.Model, "forward", lambda self, input_ids, positions, attn_metadata=None: None, "attn_metadata is an arg"),
        (sdk.Model, "load_weights", staticmethod(lambda weights: None), "it is a staticmethod, the hook is a plain"),
        (sdk.SupportsMultiModal, "get_placeholder_str", lambda self, modality, i: None, "the hook is a classmethod"),
        (BaseProcessingInfo, "get_num_image_tokens", lambda self, *, width, height: 1, "width"),
        (BaseProcessingInfo, "get_num_image_tokens", lambda self, *, image_width, image_height, hd: 1, "hd"),
        (BaseMultiModalProcessor, "_get_prompt_updates", lambda self, mm_items, out_mm_kwargs: None, "positional"),
        (BaseDummyInputsBuilder, "get_dummy_mm_data", lambda self, mm_counts: None, "positional"),
    ],
)
def test_an_override_that_the_engines_call_does_not_fit_is_refused(
    base: type, name: str, override: Any, why: str
) -> None:
    bases = (sdk.Model, base) if base is sdk.SupportsMultiModal else (base,)
    with pytest.raises(TypeError, match=rf"Mine\.{name} does not fit the hook it overrides.*{why}"):
        make(bases, **{name: override})


@pytest.mark.parametrize(
    ("base", "name", "override"),
    [
        (sdk.Model, "get_input_embeddings", lambda self, input_ids: None),
        (sdk.Model, "forward", lambda self, input_ids, positions: None),
        (sdk.Model, "forward", lambda self, input_ids, positions, intermediate_tensors=None, **kwargs: None),
        (sdk.Encoder, "forward", lambda self, pixel_values: None),
        (sdk.Encoder, "forward", lambda self, input_features, *, layers=None: None),
        (sdk.SupportsMultiModal, "get_multimodal_embeddings", lambda self, **kwargs: None),
        (sdk.SupportsMultiModal, "get_multimodal_embeddings", lambda self, pixel_values, image_sizes=None: None),
        (sdk.SupportsMultiModal, "get_multimodal_embeddings", lambda self, *, pixel_values, grid: None),
        (BaseProcessingInfo, "get_num_image_tokens", lambda self, *, image_width, image_height, crops=1: 1),
        (BaseMultiModalProcessor, "_get_prompt_updates", lambda self, *args: ()),
    ],
)
def test_an_override_that_fits_is_accepted(base: type, name: str, override: Any) -> None:
    bases = (sdk.Model, base) if base is sdk.SupportsMultiModal else (base,)
    assert make(bases, **{name: override})


def test_todays_spellings_elsewhere_are_the_same_hooks() -> None:
    cls = make(
        (sdk.Model, sdk.SupportsMultiModal),
        embed_multimodal=lambda self, **kwargs: "embedded",
        embed_input_ids=lambda self, input_ids: input_ids,
    )
    assert cls.get_multimodal_embeddings(None) == "embedded"
    assert cls.get_input_embeddings(None, 5) == 5
    with pytest.raises(TypeError, match="are the same hook: keep one"):
        make(
            (sdk.Model, sdk.SupportsMultiModal),
            embed_multimodal=lambda self, **kwargs: None,
            get_multimodal_embeddings=lambda self, **kwargs: None,
        )


def test_a_subclass_of_a_subclass_is_checked_against_the_hook_itself() -> None:
    middle = make(sdk.Model, compute_logits=lambda self, hidden_states: None)
    with pytest.raises(TypeError, match="does not fit the hook"):
        make(middle, compute_logits=lambda self: None)

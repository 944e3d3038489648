"""Faults in a model are caught at levels 1 and 4, with the likely cause."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_plugin_llama import tiny
from engine_plugin_llama.model import LlamaForCausalLM, Qwen2ForCausalLM
from engine_plugin_llava.model import LlavaForConditionalGeneration
from torch import Tensor, nn

from sdk import WeightMap
from sdk.layers import SelfAttention
from sdk.testing import LawResult
from sdk.testing.tiny import also_spelled

from .conftest import LLAMA, LLAVA, QWEN2

Planted = Callable[..., LawResult]


class WrongScale(LlamaForCausalLM):
    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        for layer in self.model.layers:
            layer.self_attn.attn.scale = 1 / layer.self_attn.attn.head_dim


class OtherAttention(LlamaForCausalLM):
    attention: type[SelfAttention]

    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        for layer in self.model.layers:
            layer.self_attn.__class__ = self.attention


class NoPositions(OtherAttention):
    class attention(SelfAttention):
        def forward(self, positions: Tensor, x: Tensor) -> Tensor:
            q, k, v = self.qkv_proj(x)
            return self.o_proj(self.attn(q, k, v))


class OwnRotary(OtherAttention):
    """Rotates q and k itself, as a model may; what it takes for positions is the fault."""

    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        for layer in self.model.layers:
            layer.self_attn.attn._rotary = (None,)
            layer.self_attn.rotary = (self.model.rotary_emb,)


class OwnPositions(OwnRotary):
    class attention(SelfAttention):
        def forward(self, positions: Tensor, x: Tensor) -> Tensor:
            q, k, v = self.qkv_proj(x)
            q, k = self.rotary[0](torch.arange(len(x)), q, k)
            return self.o_proj(self.attn(q, k, v))


class CallsTheReference(OtherAttention):
    class attention(SelfAttention):
        def forward(self, positions: Tensor, x: Tensor) -> Tensor:
            q, k, v = self.qkv_proj(x)
            return self.o_proj(self.attn.reference(q, k, v, positions))


class KeysAndValuesSwapped(OtherAttention):
    class attention(SelfAttention):
        def forward(self, positions: Tensor, x: Tensor) -> Tensor:
            q, v, k = self.qkv_proj(x)
            return self.o_proj(self.attn(q, k, v, positions))


class LoudLogits(LlamaForCausalLM):
    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        return super().compute_logits(hidden_states) * 2


class LoudEmbeddings(LlamaForCausalLM):
    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        return super().get_input_embeddings(input_ids) * 8


@pytest.mark.parametrize(
    ("model", "law_id", "what", "cause"),
    [
        (WrongScale, "L4.logits-reference", "from position 1 on", "the attention's scale, rotary positions"),
        (NoPositions, "L4.logits-reference", "needs positions: attn(q, k, v, positions)", "raised below"),
        (KeysAndValuesSwapped, "L4.logits-reference", "logits differ by up to", "the order of fused parts"),
        (
            LoudLogits,
            "L4.logits-reference",
            "logits differ",
            "hidden states agree and the logits do not (by a factor of 2)",
        ),
        (LoudEmbeddings, "L4.logits-reference", "logits differ", "embeddings differ already (by a factor of 8)"),
        (
            CallsTheReference,
            "L4.logits-engine",
            "though the model by itself is right",
            "where sequences lie end to end",
        ),
    ],
)
def test_a_model_that_computes_something_else_is_told_where_to_look(
    planted: Planted, model: type, law_id: str, what: str, cause: str
) -> None:
    result = planted(law_id, LLAMA, "model", model)
    assert result.status == "failed"
    assert what in result.detail
    assert cause in result.cause


def test_the_smallest_prompt_that_shows_a_wrong_scale_has_two_tokens(planted: Planted) -> None:
    ids = planted("L4.logits-reference", LLAMA, "model", WrongScale).smallest
    assert ids.startswith("token ids [")
    assert ids.count(",") == 1


def test_positions_that_a_model_makes_itself_are_caught_by_the_greedy_tokens(planted: Planted) -> None:
    result = planted("L4.greedy", LLAMA, "model", OwnPositions)
    assert result.status == "failed"
    assert "positions that forward makes itself" in result.cause


def test_a_law_that_needs_a_broken_one_is_not_checked_and_says_so(planted: Planted) -> None:
    result = planted("L4.greedy", LLAMA, "model", WrongScale)
    assert result.status == "skipped"
    assert result.detail == "not checked: it needs L4.logits-reference, which failed"


class Untied(Qwen2ForCausalLM):
    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        self.lm_head.weight = nn.Parameter(torch.empty_like(self.lm_head.weight), requires_grad=False)


class Tied(LlamaForCausalLM):
    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        self.lm_head.tie_weights(self.model.embed_tokens)


class Renames(LlamaForCausalLM):
    weight_map = WeightMap(rename=[(r"\.o_proj\.", ".out_proj.")])


class SaysItLoaded(LlamaForCausalLM):
    def load_weights(self, weights: Any) -> set[str]:
        list(weights)
        return {name for name, _ in self.named_parameters()}


@pytest.mark.parametrize(
    ("architecture", "model", "what", "cause"),
    [
        (QWEN2, Untied, "the checkpoint lacks 1 tensors of Untied: lm_head.weight", "the config ties the head"),
        (LLAMA, Tied, "differs from 'lm_head.weight', to which config.json ties it", "whether the head is tied"),
        (LLAMA, Renames, "model.layers.0.self_attn.o_proj.weight", "weight_map"),
        (LLAMA, SaysItLoaded, "is not filled, though load_weights says so", "load_weights"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    planted: Planted, architecture: str, model: type, what: str, cause: str
) -> None:
    result = planted("L1.weights", architecture, "model", model)
    assert result.status == "failed"
    assert what in result.detail
    assert cause in result.cause


class TakesMemory(LlamaForCausalLM):
    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        self.scale = nn.Parameter(torch.ones(3))


class StaysInFloat32(LlamaForCausalLM):
    def load_weights(self, weights: Any) -> set[str]:
        filled = super().load_weights(weights)
        self.model.norm.weight.data = self.model.norm.weight.data.float()
        return filled


def test_a_parameter_that_takes_memory_before_loading_is_named(planted: Planted) -> None:
    result = planted("L1.meta", LLAMA, "model", TakesMemory)
    assert (result.status, result.smallest) == ("failed", "scale")


def test_a_parameter_that_stays_in_float32_is_named(planted: Planted) -> None:
    result = planted("L1.bfloat16", LLAMA, "model", StaysInFloat32)
    assert result.status == "failed"
    assert "'model.norm.weight' is not bfloat16" in result.detail


@also_spelled(old=lambda name: name.replace("model.", "transformer."))
def spelled_otherwise(seed: int, folder: Path) -> None:
    tiny.llama(seed, folder)


_calls = count()


def never_the_same(seed: int, folder: Path) -> None:
    tiny.llama(seed + 10 * next(_calls), folder)


def without_a_seed(seed: int, folder: Path) -> None:
    tiny.llama(0, folder)


@pytest.mark.parametrize(
    ("law_id", "function", "what"),
    [
        ("L1.spellings", spelled_otherwise, "under the spelling 'old': "),
        ("L1.tiny", never_the_same, "made model.safetensors differently the second time"),
        ("L1.tiny", without_a_seed, "have the same weights"),
    ],
)
def test_a_tiny_checkpoint_that_proves_nothing_is_refused(
    planted: Planted, law_id: str, function: Any, what: str
) -> None:
    result = planted(law_id, LLAMA, "tiny", function)
    assert result.status == "failed"
    assert what in result.detail


class OtherLayer(LlavaForConditionalGeneration):
    def __init__(self, *, ctx: Any, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        self.feature_layers = [-1]


class MixesItems(LlavaForConditionalGeneration):
    def get_multimodal_embeddings(self, pixel_values: Tensor) -> Tensor:
        return super().get_multimodal_embeddings(pixel_values).flip(0)


@pytest.mark.parametrize(
    ("model", "smallest"),
    [
        (OtherLayer, "'<image>' with a 64×48 RGB picture"),
        (MixesItems, "'<image><image>' with a 64×48 RGB picture, a 32×33 L picture"),
    ],
)
def test_media_that_are_encoded_otherwise_are_caught_with_text_still_right(
    planted: Planted, model: type, smallest: str
) -> None:
    assert planted("L4.logits-reference", LLAVA, "model", model).status == "passed"
    result = planted("L4.media-reference", LLAVA, "model", model)
    assert result.status == "failed"
    assert "it goes wrong where the media begin: the encoder (which layer" in result.cause
    assert result.smallest == smallest


def test_a_class_token_too_many_is_a_row_too_many(planted: Planted) -> None:
    class KeepsClassToken(LlavaForConditionalGeneration):
        def __init__(self, *, ctx: Any, prefix: str = "") -> None:
            super().__init__(ctx=ctx, prefix=prefix)
            self.drop_class_token = False

    result = planted("L2.placeholder-rows", LLAVA, "model", KeepsClassToken)
    assert (
        "has 16 placeholder tokens that take embeddings, and get_multimodal_embeddings gives it 17 rows"
        in result.detail
    )
    assert "a class token" in result.cause

"""Rotary embeddings against transformers' own, for every rope_type."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from sdk.layers import Attention, RotaryEmbedding, attention_reference

WIDTH = 16
LONG = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [1.0 + i for i in range(8)]}
TYPES = {
    "default": {},
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 3.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {"factor": 4.0, "original_max_position_embeddings": 16, **LONG},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "proportional": {"factor": 2.0, "partial_rotary_factor": 0.5},
}


def config(rope_type: str) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=2 * WIDTH,
        num_attention_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": rope_type, "rope_theta": 100.0, **TYPES[rope_type]},
    )


def qk(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, WIDTH, generator=generator), torch.randn(n, 2, WIDTH, generator=generator)


def hf(rope_type: str, positions: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = LlamaRotaryEmbedding(config(rope_type))(q, positions[None])
    turned = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos, sin)
    return turned[0][0].transpose(0, 1), turned[1][0].transpose(0, 1)


@pytest.mark.parametrize("length", [1, 12, 16, 17, 60, 64, 65, 130])
@pytest.mark.parametrize("rope_type", TYPES)
def test_every_rope_type_rotates_as_transformers_does(rope_type: str, length: int) -> None:
    positions = torch.arange(length)
    q, k = qk(length)
    for ours, theirs in zip(RotaryEmbedding(config(rope_type), WIDTH)(positions, q, k), hf(rope_type, positions, q, k)):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_each_token_carries_the_length_that_counts_for_it(rope_type: str) -> None:
    """A prompt of 70 decoded to 90 beside one of 10: neither changes the other, whatever shares the step."""
    rotary = RotaryEmbedding(config(rope_type), WIDTH)
    assert rotary.depends_on_length
    positions = torch.tensor([*range(5), 69, 89, 9])
    lengths = torch.tensor([70] * 6 + [90, 10])
    together = rotary.cos_sin(positions, lengths)
    for i, (position, length) in enumerate(zip(positions, lengths)):
        whole = rotary.cos_sin(torch.arange(int(length)))
        for ours, alone in zip(together, whole):
            torch.testing.assert_close(ours[i], alone[int(position)])


def test_the_table_grows_with_the_positions() -> None:
    rotary = RotaryEmbedding(config("default"), WIDTH)
    first = rotary.cos_sin(torch.tensor([3]))
    rotary.cos_sin(torch.tensor([1000]))
    assert torch.equal(rotary.cos_sin(torch.tensor([3]))[0], first[0])
    assert rotary.cos_sin(torch.tensor([], dtype=torch.long))[0].shape == (0, WIDTH // 2)


def test_interleaved_pairs_are_neighbours() -> None:
    rotary = RotaryEmbedding(config("default"), WIDTH, interleaved=True)
    positions = torch.arange(9)
    q, k = qk(9)
    cos, sin = rotary.cos_sin(positions)
    pairs = torch.view_as_complex(q.unflatten(-1, (-1, 2)).contiguous())
    turned = torch.view_as_real(pairs * torch.complex(cos, sin)[:, None]).flatten(-2)
    torch.testing.assert_close(rotary(positions, q, k)[0], turned)


def test_a_partial_rotation_leaves_the_rest_alone() -> None:
    values = config("default")
    values.rope_parameters["partial_rotary_factor"] = 0.5
    q, k = qk(5)
    turned, _ = RotaryEmbedding(values, WIDTH)(torch.arange(5), q, k)
    assert torch.equal(turned[..., 8:], q[..., 8:])
    assert not torch.equal(turned[1:, :, :8], q[1:, :, :8])


def test_older_spellings_of_the_config_are_understood() -> None:
    class Old:
        hidden_size, num_attention_heads, max_position_embeddings = 32, 2, 64
        rope_theta, rope_scaling = 100.0, None

    assert torch.equal(RotaryEmbedding(Old(), WIDTH).inv_freq, RotaryEmbedding(config("default"), WIDTH).inv_freq)


def test_an_unknown_type_is_named_with_those_there_are() -> None:
    values = config("default")
    values.rope_parameters["rope_type"] = "spiral"
    with pytest.raises(ValueError, match="'spiral'; the installed transformers knows: default, dynamic"):
        RotaryEmbedding(values, WIDTH)


@pytest.mark.parametrize("rope_type", TYPES)
def test_frequencies_are_real_when_the_model_is_built_on_the_meta_device(rope_type: str) -> None:
    with torch.device("meta"):
        rotary = RotaryEmbedding(config(rope_type), WIDTH)
    assert all(not buffer.is_meta for buffer in rotary.buffers())
    assert torch.equal(rotary.inv_freq, RotaryEmbedding(config(rope_type), WIDTH).inv_freq)


def test_attention_rotates_first_and_needs_positions_for_it() -> None:
    rotary = RotaryEmbedding(config("default"), WIDTH)
    layer = Attention(4, WIDTH, num_kv_heads=2, rotary=rotary)
    q, k = qk(6)
    v = torch.randn(6, 2, WIDTH)
    positions = torch.arange(6)
    turned = rotary(positions, q, k)
    torch.testing.assert_close(layer(q, k, v, positions), attention_reference(*turned, v, scale=WIDTH**-0.5))
    with pytest.raises(ValueError, match="needs positions"):
        layer(q, k, v)
    assert not list(layer.buffers())

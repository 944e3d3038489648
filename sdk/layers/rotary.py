"""Rotary position embedding (Su et al. 2021) with every `rope_type` of transformers.

Frequencies come from transformers' own table, so that a type it learns is one we know. Two types depend on how long the
sequence is (`dynamic`, `longrope`): transformers looks at the longest position of the call. Here each token carries the
length that counts for it, the prompt's for a prompt token and its own position plus one afterwards, which gives
transformers' numbers for a prompt computed in one piece followed by decoding, and does not change with chunk sizes or
with what shares the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Layer

_LENGTH_DEPENDENT = ("dynamic", "longrope")


def rope_parameters(config: Any, layer_type: str | None = None) -> dict[str, Any]:
    """The config's rope parameters in today's spelling, also where it uses `rope_theta` and `rope_scaling`."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if layer_type is not None and layer_type in found:
        found = found[layer_type]
    parameters = dict(found)
    parameters.setdefault("rope_type", parameters.pop("type", "default"))
    parameters.setdefault("rope_theta", getattr(config, "rope_theta", None) or 10000.0)
    return parameters


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first `2 * cos.shape[-1]` dimensions of each head.

    Shapes: x `(tokens, heads, head_dim)`, cos and sin `(tokens, rotary_dim / 2)`.
    """
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turned[..., :half], turned[..., half:]
        out = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((out, rest), dim=-1) if rest.shape[-1] else out


class RotaryEmbedding(Layer):
    """Rotates queries and keys by their positions.

    Args:
        config: The HF config that holds `rope_parameters` (or the older `rope_theta`, `rope_scaling`).
        head_dim: Width of a head; by default the config's, or `hidden_size / num_attention_heads`.
        layer_type: Which entry of per-layer-type rope parameters to use.
        interleaved: Pairs are neighbours (GPT-J) rather than halves (NeoX, the HF default).
        restarts: A sequence that outgrows the original length of `longrope` while it is decoded is computed anew, all of it
            with the long frequencies, as Phi-3 asks; otherwise only the tokens after that length take them.

    Shapes: positions `(tokens,)`, q `(tokens, heads, head_dim)`, k `(tokens, kv heads, head_dim)` → q, k.
    """

    inv_freq: Tensor
    long_inv_freq: Tensor

    def __init__(
        self,
        config: Any,
        head_dim: int | None = None,
        *,
        layer_type: str | None = None,
        interleaved: bool = False,
        restarts: bool = False,
        prefix: str = "",
    ) -> None:
        super().__init__(prefix)
        self.head_dim: int = (
            head_dim or getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.interleaved = interleaved
        self.rope = rope_parameters(config, layer_type)
        self.rope_type: str = self.rope["rope_type"]
        self.max_position = int(getattr(config, "max_position_embeddings", 0) or 0)
        inv_freq, self.attention_scaling = self._frequencies(config, layer_type, None)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        if self.rope_type == "longrope":
            self.original_max = int(
                self.rope.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", None)
                or self.max_position
            )
            long_freq, _ = self._frequencies(config, layer_type, self.original_max + 1)
            self.register_buffer("long_inv_freq", long_freq, persistent=False)
        self.restart_length = self.original_max if restarts and self.rope_type == "longrope" else None
        self.rotary_dim = 2 * inv_freq.shape[-1]
        self._table: tuple[Tensor, Tensor] | None = None

    def _frequencies(self, config: Any, layer_type: str | None, length: int | None) -> tuple[Tensor, float]:
        dim = int(self.head_dim * self.rope.get("partial_rotary_factor", 1.0))
        # Models are built on the meta device; what is computed here must be real all the same.
        with torch.device("cpu"):
            if self.rope_type == "default":
                exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
                return 1.0 / (self.rope["rope_theta"] ** exponents), 1.0
            from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

            if self.rope_type not in ROPE_INIT_FUNCTIONS:
                known = ", ".join(["default", *sorted(ROPE_INIT_FUNCTIONS)])
                raise ValueError(
                    f"config names rope_type {self.rope_type!r}; the installed transformers knows: {known}"
                )
            compute = ROPE_INIT_FUNCTIONS[self.rope_type]
            inv_freq, scaling = compute(config, torch.device("cpu"), length, layer_type=layer_type)
        return inv_freq.float(), float(scaling)

    @property
    def depends_on_length(self) -> bool:
        """Whether the frequencies of a token depend on its sequence's length."""
        return self.rope_type in _LENGTH_DEPENDENT

    def cos_sin(
        self, positions: Tensor, lengths: Tensor | None = None, *, below: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines, float32, `(tokens, rotary_dim / 2)` each.

        Args:
            positions: `(tokens,)`.
            lengths: `(tokens,)`, the sequence length that counts for each token; `None` for one sequence seen whole.
            below: No position is as large, where the caller knows: looking would wait for the device.
        """
        if not self.depends_on_length:
            return self._from_table(positions, below)
        if lengths is None:
            lengths = (positions.max() + 1).expand_as(positions)
        angles = positions.float().unsqueeze(-1) * self._length_frequencies(lengths)
        return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling

    def _length_frequencies(self, lengths: Tensor) -> Tensor:
        if self.rope_type == "longrope":
            return torch.where((lengths > self.original_max).unsqueeze(-1), self.long_inv_freq, self.inv_freq)
        # Dynamic NTK (bloc97, emozilla 2023): the base grows with the length beyond the trained one.
        factor, dim = self.rope["factor"], self.rotary_dim
        stretched = factor * lengths.clamp(min=self.max_position).float() / self.max_position - (factor - 1)
        base: Tensor = self.rope["rope_theta"] * stretched ** (dim / (dim - 2))
        exponents = torch.arange(0, dim, 2, dtype=torch.int64, device=lengths.device).float() / dim
        return 1.0 / (base.unsqueeze(-1) ** exponents)

    def _from_table(self, positions: Tensor, below: int | None) -> tuple[Tensor, Tensor]:
        needed = below if below is not None else int(positions.max()) + 1 if positions.numel() else 1
        if self._table is None or self._table[0].shape[0] < needed:
            self._table = self.table(max(256, 1 << (needed - 1).bit_length()))  # not anew for every token
        return self._table[0][positions], self._table[1][positions]

    def table(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the positions `0 … length - 1`, float32, `(length, rotary_dim / 2)` each."""
        angles = torch.outer(torch.arange(length, device=self.inv_freq.device).float(), self.inv_freq)
        return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling

    def reference(
        self, positions: Tensor, q: Tensor, k: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        cos, sin = (x.to(q.dtype) for x in self.cos_sin(positions, lengths))
        return rotate(q, cos, sin, self.interleaved), rotate(k, cos, sin, self.interleaved)

    def extra_repr(self) -> str:
        return f"{self.rope_type}, rotary_dim={self.rotary_dim}"

"""Linear layers. On one device they are all `x @ W.T + b`; their kinds say how an engine may split or fuse them.

A plain layer returns a tensor, a merged one the tuple of its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Layer

if TYPE_CHECKING:
    from ..quantization import QuantizeMethod


class Linear(Layer):
    """`y = x @ W.T + b`.

    Args:
        input_size: Width of `x`.
        output_size: Width of `y`.
        bias: Whether there is a `b`.

    Shapes: `(..., input_size) -> (..., output_size)`.
    """

    bias: nn.Parameter | None
    quant_method: QuantizeMethod | None = None
    """How the weight is kept in fewer bits, where the engine was asked to; then `weight` is what the method made of it."""

    def __init__(self, input_size: int, output_size: int, bias: bool = True, *, prefix: str = "") -> None:
        super().__init__(prefix)
        self.input_size, self.output_size = input_size, output_size
        self.weight = nn.Parameter(torch.empty(output_size, input_size), requires_grad=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(output_size), requires_grad=False) if bias else None)

    def matmul(self, x: Tensor) -> Tensor:
        """The product itself, by the kernel or by torch: what every kind of linear layer shares."""
        out: Tensor = self.product(x) if self.kernel is None else self.kernel(x)
        return out

    def product(self, x: Tensor) -> Tensor:
        """The product in plain torch, with the weight as it is kept."""
        if self.quant_method is not None:
            return self.quant_method.apply(self, x)
        return F.linear(x, self.weight, self.bias)

    def reference(self, x: Tensor) -> Any:
        return self.product(x)

    def extra_repr(self) -> str:
        return f"{self.input_size} -> {self.output_size}, bias={self.bias is not None}"


class ReplicatedLinear(Linear):
    """Every device holds the whole weight."""


class ColumnParallelLinear(Linear):
    """The output is split over devices: the first half of a two-layer block."""


class RowParallelLinear(Linear):
    """The input is split over devices and the products are summed: the second half of a two-layer block."""


class MergedColumnParallelLinear(Linear):
    """Several column-parallel layers with the same input, computed as one product.

    Args:
        input_size: Width of `x`.
        output_sizes: Widths of the parts.
        parts: What the checkpoint calls the parts, e.g. `("gate_proj", "up_proj")`; a checkpoint that stores them
            fused, under this layer's own name and in this order, loads as well.
        without_bias: Parts that have no bias while the others have one.

    Shapes: `(..., input_size) -> tuple of (..., output_sizes[i])`.
    """

    def __init__(
        self,
        input_size: int,
        output_sizes: Sequence[int],
        bias: bool = True,
        *,
        parts: Sequence[str],
        without_bias: Sequence[str] = (),
        prefix: str = "",
    ) -> None:
        if len(parts) != len(output_sizes):
            raise ValueError(f"{len(output_sizes)} output sizes but {len(parts)} part names: {tuple(parts)}")
        super().__init__(input_size, sum(output_sizes), bias, prefix=prefix)
        self.output_sizes, self.parts = tuple(output_sizes), tuple(parts)
        self.without_bias = _checked(without_bias, self.parts)

    def part_rows(self) -> Mapping[str, slice]:
        starts = [sum(self.output_sizes[:i]) for i in range(len(self.output_sizes))]
        return {p: slice(s, s + n) for p, s, n in zip(self.parts, starts, self.output_sizes)}

    def part_zeros(self) -> Mapping[str, Sequence[slice]]:
        return _no_biases(self, self.without_bias)

    def reference(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(self.product(x), [*self.output_sizes], dim=-1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(self.matmul(x), [*self.output_sizes], dim=-1)


class QKVParallelLinear(Linear):
    """Query, key and value projections of multi-head or grouped-query attention, computed as one product.

    Args:
        hidden_size: Width of `x`.
        head_dim: Width of a head.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; as many as query heads when not given.
        parts: What the checkpoint calls the three projections.
        without_bias: Those that have no bias while the others have one.

    Shapes: `(..., hidden_size) -> q (..., heads here, head_dim), k and v (..., key/value heads here, head_dim)`.
    """

    def __init__(
        self,
        hidden_size: int,
        head_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        bias: bool = True,
        *,
        parts: Sequence[str] = ("q_proj", "k_proj", "v_proj"),
        without_bias: Sequence[str] = (),
        prefix: str = "",
    ) -> None:
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads or num_heads, head_dim
        self.sizes = (self.num_heads * head_dim, self.num_kv_heads * head_dim, self.num_kv_heads * head_dim)
        super().__init__(hidden_size, sum(self.sizes), bias, prefix=prefix)
        self.parts = tuple(parts)
        self.without_bias = _checked(without_bias, self.parts)

    def part_rows(self) -> Mapping[str, slice]:
        q, k, v = self.sizes
        return dict(zip(self.parts, (slice(0, q), slice(q, q + k), slice(q + k, q + k + v))))

    def part_zeros(self) -> Mapping[str, Sequence[slice]]:
        return _no_biases(self, self.without_bias)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = qkv.view(*qkv.shape[:-1], -1, self.head_dim)
        q, k, v = torch.split(heads, [self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=-2)
        return q, k, v

    def reference(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.product(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(self.matmul(x))


def _checked(without_bias: Sequence[str], parts: Sequence[str]) -> tuple[str, ...]:
    unknown = [part for part in without_bias if part not in parts]
    if unknown:
        raise ValueError(f"without_bias names {', '.join(unknown)}; the parts are {', '.join(parts)}")
    return tuple(without_bias)


def _no_biases(layer: Linear, without_bias: Sequence[str]) -> Mapping[str, Sequence[slice]]:
    """The rows of the fused bias that belong to parts without one."""
    if layer.bias is None or not without_bias:
        return {}
    rows = layer.part_rows()
    return {"bias": [rows[part] for part in without_bias]}

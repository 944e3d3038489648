"""The SDK's layers under the signatures that ported code calls: linear layers return `(output, bias)` pairs, heads lie flat.

What they compute and how the engine fills them is the SDK's; an argument that asks for what the engine decides is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import layers as sdk_layers
from ..layers import Activation, LayerNorm, RMSNorm
from ..layers.linear import Linear
from .refused import REFUSED, NotPortableError, refuse
from .state_layers import MambaMixer, MambaMixer2
from .weights import default_weight_loader

Pair = tuple[Tensor, Tensor | None]


def __getattr__(name: str) -> Any:
    if name in REFUSED:
        refuse(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _leave_to_engine(layer: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None and value is not False:
            raise NotPortableError(f"{layer}({name}=…) is the engine's to decide; leave it out, or pass None")


class _Paired(Linear):
    """A linear layer that returns its output and, where it is not added, its bias.

    Args:
        input_size, output_size, bias, prefix: As in `sdk.layers`.
        skip_bias_add: Return the bias instead of adding it.
        params_dtype, quant_config, linear_method: Must be None: the engine decides.
        return_bias: Whether pairs are returned.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        skip_bias_add: bool = False,
        params_dtype: Any = None,
        quant_config: Any = None,
        linear_method: Any = None,
        *,
        gather_output: bool = False,
        input_is_parallel: bool = True,
        reduce_results: bool = True,
        return_bias: bool = True,
        prefix: str = "",
    ) -> None:
        _leave_to_engine(
            type(self).__name__, quant_config=quant_config, linear_method=linear_method, skip_bias_add=skip_bias_add
        )
        if not reduce_results or not input_is_parallel:
            raise NotPortableError(f"{type(self).__name__} adds up what the devices computed; leave that to the engine")
        super().__init__(input_size, output_size, bias, prefix=prefix)
        self.return_bias = return_bias

    def forward(self, x: Tensor) -> Any:
        """`(..., input_size) -> ((..., output_size), None)`."""
        return self._paired(self.matmul(x))

    def _paired(self, out: Tensor) -> Tensor | Pair:
        return (out, None) if self.return_bias else out


class ReplicatedLinear(_Paired, sdk_layers.ReplicatedLinear):
    """Every device holds the whole weight."""


class ColumnParallelLinear(_Paired, sdk_layers.ColumnParallelLinear):
    """The output is split over devices."""


class RowParallelLinear(_Paired, sdk_layers.RowParallelLinear):
    """The input is split over devices and the products are summed."""


class MergedColumnParallelLinear(_Paired, sdk_layers.ColumnParallelLinear):
    """Several column-parallel layers in one: `(..., input_size) -> ((..., sum of output_sizes), None)`.

    Its `weight_loader` takes the part's number as the shard.
    """

    def __init__(self, input_size: int, output_sizes: Sequence[int], bias: bool = True, **options: Any) -> None:
        super().__init__(input_size, sum(output_sizes), bias, **options)
        self.output_sizes = tuple(output_sizes)

    def weight_loader(self, parameter: Tensor, loaded_weight: Tensor, loaded_shard_id: int | None = None) -> None:
        """Fill one part, or all of them from a fused tensor."""
        if loaded_shard_id is None:
            return default_weight_loader(parameter, loaded_weight)
        first = sum(self.output_sizes[:loaded_shard_id])
        default_weight_loader(parameter[first : first + self.output_sizes[loaded_shard_id]], loaded_weight)


class QKVParallelLinear(_Paired, sdk_layers.ColumnParallelLinear):
    """Query, key and value projections in one: `(..., hidden_size) -> ((..., q, k and v end to end), None)`.

    Its `weight_loader` takes `"q"`, `"k"` or `"v"` as the shard.
    """

    def __init__(
        self,
        hidden_size: int,
        head_size: int,
        total_num_heads: int,
        total_num_kv_heads: int | None = None,
        bias: bool = True,
        **options: Any,
    ) -> None:
        self.num_heads, self.num_kv_heads = total_num_heads, total_num_kv_heads or total_num_heads
        self.head_size, self.hidden_size = head_size, hidden_size
        super().__init__(hidden_size, (self.num_heads + 2 * self.num_kv_heads) * head_size, bias, **options)

    def weight_loader(self, parameter: Tensor, loaded_weight: Tensor, loaded_shard_id: str | None = None) -> None:
        """Fill one of the three, or all of them from a fused tensor."""
        if loaded_shard_id is None:
            return default_weight_loader(parameter, loaded_weight)
        q, k = self.num_heads * self.head_size, self.num_kv_heads * self.head_size
        rows = {"q": slice(0, q), "k": slice(q, q + k), "v": slice(q + k, q + 2 * k)}[loaded_shard_id]
        default_weight_loader(parameter[rows], loaded_weight)


class VocabParallelEmbedding(sdk_layers.VocabParallelEmbedding):
    """A table of token embeddings: `(tokens,) -> (tokens, embedding_dim)`."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        params_dtype: Any = None,
        org_num_embeddings: int | None = None,
        quant_config: Any = None,
        prefix: str = "",
    ) -> None:
        _leave_to_engine("VocabParallelEmbedding", quant_config=quant_config)
        super().__init__(num_embeddings, embedding_dim, prefix=prefix)


class ParallelLMHead(sdk_layers.ParallelLMHead):
    """Hidden states → logits; called through `LogitsProcessor`."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        bias: bool = False,
        params_dtype: Any = None,
        org_num_embeddings: int | None = None,
        quant_config: Any = None,
        prefix: str = "",
    ) -> None:
        _leave_to_engine("ParallelLMHead", quant_config=quant_config)
        super().__init__(num_embeddings, embedding_dim, bias, prefix=prefix)


class LogitsProcessor(nn.Module):
    """`scale * cap(head(x))`: `(rows, hidden) -> (rows, vocab)`."""

    def __init__(
        self, vocab_size: int, org_vocab_size: int | None = None, scale: float = 1.0, soft_cap: float | None = None
    ) -> None:
        super().__init__()
        self.vocab_size, self.scale, self.soft_cap = org_vocab_size or vocab_size, scale, soft_cap

    def forward(self, lm_head: Any, hidden_states: Tensor, sampling_metadata: Any = None) -> Tensor:
        """Logits of the rows that are sampled; a tied head may be given as the embedding that it is tied to."""
        tied = isinstance(lm_head, sdk_layers.VocabParallelEmbedding)
        logits: Tensor = F.linear(hidden_states, lm_head.weight) if tied else lm_head(hidden_states)
        logits = logits[..., : self.vocab_size]
        if self.soft_cap is not None:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        return logits * self.scale if self.scale != 1.0 else logits


class SiluAndMul(sdk_layers.SiluAndMul):
    """`silu(gate) * up` of gate and up end to end: `(..., 2 n) -> (..., n)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Split in halves, then as in `sdk.layers`."""
        out: Tensor = super().forward(*x.chunk(2, dim=-1))
        return out


class GeluAndMul(sdk_layers.GeluAndMul):
    """`gelu(gate) * up` of gate and up end to end: `(..., 2 n) -> (..., n)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Split in halves, then as in `sdk.layers`."""
        out: Tensor = super().forward(*x.chunk(2, dim=-1))
        return out


def get_act_fn(name: str) -> Activation:
    """An elementwise activation by its HF name."""
    return Activation(name)


class RotaryEmbedding(sdk_layers.RotaryEmbedding):
    """Rotates flat q and k: `(tokens, heads * head_dim)` each."""

    def forward(self, positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """As in `sdk.layers`, on heads that lie flat."""
        heads = (x.view(len(x), -1, self.head_dim) for x in (query, key))
        q, k = super().forward(positions, *heads)
        return q.reshape(query.shape), k.reshape(key.shape)


def get_rope(
    head_size: int,
    rotary_dim: int | None = None,
    max_position: int = 8192,
    base: float | None = None,
    is_neox_style: bool = True,
    rope_scaling: dict[str, Any] | None = None,
    dtype: Any = None,
    partial_rotary_factor: float = 1.0,
    rope_parameters: dict[str, Any] | None = None,
) -> RotaryEmbedding:
    """The rotary embedding of a config, by its numbers (`base`, `rope_scaling`) or by today's `rope_parameters`."""
    from transformers import PretrainedConfig

    rope: dict[str, Any] = {**(rope_scaling or {}), **(rope_parameters or {})}
    rope["rope_type"] = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope["rope_theta"] = base if base is not None else rope.get("rope_theta", 10000.0)
    part = (rotary_dim or head_size) / head_size * partial_rotary_factor
    if part != 1.0:
        rope["partial_rotary_factor"] = part
    if rope["rope_type"] in ("dynamic", "longrope", "su"):
        raise NotPortableError(
            f"rope type {rope['rope_type']!r} depends on the sequence's length, which only the attention layer knows here: "
            "use sdk.layers.Attention(…, rotary=sdk.layers.RotaryEmbedding(config))"
        )
    config = PretrainedConfig(
        rope_parameters=rope,
        max_position_embeddings=max_position,
        head_dim=head_size,
        hidden_size=head_size,
        num_attention_heads=1,
    )
    return RotaryEmbedding(config, head_size, interleaved=not is_neox_style)


class Attention(sdk_layers.Attention):
    """Causal self-attention over flat heads: q `(tokens, heads * head_size)` → the same; keys and values are kept by it."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: Sequence[float] | None = None,
        cache_config: Any = None,
        quant_config: Any = None,
        logits_soft_cap: float | None = None,
        per_layer_sliding_window: int | None = None,
        prefix: str = "",
        attn_type: str = "decoder",
    ) -> None:
        _leave_to_engine("Attention", cache_config=cache_config, quant_config=quant_config)
        if attn_type != "decoder":
            raise NotPortableError(
                f"Attention(attn_type={attn_type!r}) is another layer here: sdk.layers.EncoderAttention for an encoder"
            )
        slopes = None if alibi_slopes is None else torch.tensor(alibi_slopes, dtype=torch.float32)
        super().__init__(
            num_heads,
            head_size,
            scale,
            num_kv_heads,
            sliding_window=per_layer_sliding_window,
            logit_softcap=logits_soft_cap,
            alibi_slopes=slopes,
            prefix=prefix,
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *former: Any) -> Tensor:
        """As in `sdk.layers`, on heads that lie flat."""
        if former:
            raise NotPortableError("attn(q, k, v) takes no cache and no metadata: it keeps its own keys and values")
        out: Tensor = super().forward(*(x.view(len(x), -1, self.head_dim) for x in (query, key, value)))
        return out


__all__ = [
    "Attention",
    "ColumnParallelLinear",
    "GeluAndMul",
    "LayerNorm",
    "LogitsProcessor",
    "MambaMixer",
    "MambaMixer2",
    "MergedColumnParallelLinear",
    "ParallelLMHead",
    "QKVParallelLinear",
    "RMSNorm",
    "ReplicatedLinear",
    "RotaryEmbedding",
    "RowParallelLinear",
    "SiluAndMul",
    "VocabParallelEmbedding",
    "get_act_fn",
    "get_rope",
]

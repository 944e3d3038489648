"""Fill a model's holes from outside: pages for its attention, packed forms for its products. Once, after loading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdk.layers import (
    Attention,
    BidirectionalAttention,
    CrossAttention,
    Experts,
    Layer,
    RotaryEmbedding,
    StateLayer,
    VocabParallelEmbedding,
)
from sdk.layers.linear import Linear

from .cache.memory import zeroed
from .cache.states import EncoderStates, padded
from .errors import PluginContractError
from .kernels.bidirectional import StepBidirectionalAttention
from .kernels.choice import kernels_for, tied_table
from .kernels.experts import pack_experts
from .kernels.linear import pack
from .kernels.state import SlotKernel
from .process import large_blocks_apart
from .step import StepHolder


@dataclass(frozen=True)
class PageShape:
    """What one token of one attention layer takes in the pool."""

    num_kv_heads: int
    head_dim: int

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Keys and values."""
        return 2 * self.num_kv_heads * self.head_dim * dtype.itemsize


def attention_layers(model: nn.Module) -> dict[str, Attention]:
    """The layers that keep K/V: path → layer.

    Raises:
        PluginContractError: Two layers were given one prefix.
    """
    found = {path: m for path, m in model.named_modules() if isinstance(m, Attention)}
    owners: dict[str, str] = {}
    for path, layer in found.items():
        other = owners.setdefault(layer.prefix, path) if layer.prefix else path
        if other != path:
            raise PluginContractError(
                f"attention layers {other!r} and {path!r} were both given prefix={layer.prefix!r}; "
                "give each its own, or leave prefix out: the path in the module tree is the name"
            )
    return found


def rotary_embeddings(model: nn.Module) -> list[RotaryEmbedding]:
    """The rotary embeddings that the layers with K/V apply, each once."""
    return list(dict.fromkeys(a.rotary for a in attention_layers(model).values() if a.rotary is not None))


def page_shapes(model: nn.Module) -> dict[str, PageShape]:
    """Path of each layer that keeps K/V → what it takes."""
    return {path: PageShape(a.num_kv_heads, a.head_dim) for path, a in attention_layers(model).items()}


def allocate_pages(
    model: nn.Module, num_pages: int, page_size: int, dtype: torch.dtype, device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    """K/V of every attention layer, zeroed: a page that was never written must not hold NaN. Page 0 is for padding."""

    def pool(shape: PageShape) -> Tensor:
        return zeroed((num_pages + 1, page_size, shape.num_kv_heads, shape.head_dim), dtype, device)

    return {path: (pool(s), pool(s)) for path, s in page_shapes(model).items()}


def cross_attention_layers(model: nn.Module) -> dict[str, CrossAttention]:
    """The layers that attend over encoder states: path → layer."""
    return {path: m for path, m in model.named_modules() if isinstance(m, CrossAttention)}


def state_bytes(model: nn.Module, rows: int, dtype: torch.dtype) -> int:
    """Keys and values that cross-attention keeps of one request, in all layers."""
    layers = cross_attention_layers(model).values()
    return sum(2 * padded(rows) * a.num_kv_heads * a.head_dim for a in layers) * dtype.itemsize


def allocate_states(
    model: nn.Module, num_states: int, rows: int, dtype: torch.dtype, device: torch.device
) -> EncoderStates:
    """Memory for so many states of at most so many rows; state 0 is for padding."""
    layers = cross_attention_layers(model)

    def pool(layer: CrossAttention) -> Tensor:
        return zeroed((num_states + 1, padded(rows), layer.num_kv_heads, layer.head_dim), dtype, device)

    return EncoderStates(layers, {path: (pool(a), pool(a)) for path, a in layers.items()}, rows)


def state_layers(model: nn.Module) -> dict[str, StateLayer]:
    """The layers that keep a state of each sequence: path → layer."""
    return {path: m for path, m in model.named_modules() if isinstance(m, StateLayer)}


def slot_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """What state layers keep of one sequence, however long it is."""
    specs = [spec for layer in state_layers(model).values() for spec in layer.state_specs().values()]
    return sum(spec.numel * (spec.dtype or dtype).itemsize for spec in specs)


def allocate_slots(
    model: nn.Module, count: int, dtype: torch.dtype, device: torch.device
) -> dict[str, dict[str, Tensor]]:
    """States of so many sequences, for every layer that keeps some. Nothing is read of a slot before it was written."""

    def pool(layer: StateLayer) -> dict[str, Tensor]:
        specs = layer.state_specs()
        return {name: zeroed((count, *spec.shape), spec.dtype or dtype, device) for name, spec in specs.items()}

    return {path: pool(layer) for path, layer in state_layers(model).items()}


@large_blocks_apart()
def bind(
    model: nn.Module,
    pages: dict[str, tuple[Tensor, Tensor]],
    step: StepHolder,
    slots: Mapping[str, Mapping[str, Tensor]],
    states: EncoderStates | None = None,
) -> None:
    """Fill every hole of a loaded model."""
    kernels = kernels_for(_sample(model))
    for path, layer in attention_layers(model).items():
        layer.fill(kernels.attention(layer, *pages[path], step))
    if states is not None:
        for index, (path, cross) in enumerate(states.layers.items()):
            cross.fill(kernels.cross_attention(cross, *states.memory[path], step, index))
    for path, stateful in state_layers(model).items():
        stateful.fill(SlotKernel(stateful, slots[path], step))
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
    for module in model.modules():
        if isinstance(module, Linear) and module.quant_method is None:
            pack(module, keep_weight=len(owners[id(module.weight)]) > 1)
        elif isinstance(module, BidirectionalAttention):
            module.fill(StepBidirectionalAttention(module, kernels, step))
        elif isinstance(module, Layer) and (kernel := kernels.other(module)) is not None:
            module.fill(kernel)
        elif isinstance(module, Experts):
            pack_experts(module)
    for embedding, head in _tied(owners.values()):
        table = tied_table(head.kernel)
        if table is not None:
            embedding.fill(table)
            embedding.weight = head.weight = nn.Parameter(head.weight.new_empty(0), requires_grad=False)


def _tied(owners: Iterable[Sequence[nn.Module]]) -> Iterator[tuple[VocabParallelEmbedding, Linear]]:
    """Embeddings and the heads that have the same weight, where nobody else has it."""
    for modules in owners:
        heads = [module for module in modules if isinstance(module, Linear)]
        tables = [module for module in modules if type(module) is VocabParallelEmbedding]
        if len(heads) == len(tables) == 1 and len(modules) == 2:
            yield tables[0], heads[0]


def _sample(model: nn.Module) -> Tensor:
    """A parameter of the model's own dtype: quantized layers keep integers, and scales in float32."""
    plain = (m for m in model.modules() if getattr(m, "quant_method", None) is None)
    return next(p for m in plain for p in m.parameters(recurse=False) if p.is_floating_point())


def unbind(model: nn.Module) -> None:
    """Empty the holes that point at pages and steps, so that a closed engine's memory is freed."""
    for module in model.modules():
        if isinstance(module, Layer):
            module.fill(None)

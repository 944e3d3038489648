"""How much memory there is to plan with, and how much a model takes: arithmetic over its layers, before any is allocated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sdk.interfaces import Encoder, supports_multimodal
from sdk.layers.embedding import ParallelLMHead
from sdk.layers.linear import Linear

from .quantization.attach import Quantized, parameter_dtype

CACHE_SHARE = {"cpu": 0.4, "cuda": 0.9}
"""Of what weights and activations leave, the most that the page pool may take when nobody says how much. A CPU's memory is
shared with everybody else on the machine."""
LIVE_COPIES = 4
"""How many activations of a model's widest layer are alive at a time: its input, its output, a residual and one to spare."""
PATCHES_PER_TOKEN = 4
"""Most of a tower's patches that become one token of the language model."""
_FALLBACK = 4 * 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """Where a device's memory goes, in bytes.

    Attributes:
        available: Free before the model was loaded; of a container, what its limit leaves.
        weights: Parameters.
        activations: The largest step, with as much media as a step may encode.
        cache: The page pool.
        states: What cross-attention keeps of encoded media, and state layers of sequences.
        measured: Whether `activations` was measured by running that step; by arithmetic otherwise.
    """

    available: int
    weights: int
    activations: int
    cache: int
    states: int = 0
    measured: bool = False

    @property
    def left(self) -> int:
        """What weights and activations leave; below zero where they do not fit."""
        return self.available - self.weights - self.activations


def weights_bytes(model: nn.Module, dtype: torch.dtype, quantized: Quantized | None = None) -> int:
    """Bytes of the parameters, tied ones once, in the dtype that they will have; of quantized layers, what they keep."""
    kept = quantized.bytes if quantized is not None else {}
    plain = (p for name, p in model.named_parameters() if name.rpartition(".")[0] not in kept)
    return sum(kept.values()) + sum(p.numel() * parameter_dtype(p, dtype).itemsize for p in plain)


def activation_bytes(
    model: nn.Module, dtype: torch.dtype, *, step_tokens: int, step_sequences: int, encoder_tokens: int
) -> int:
    """Bytes that the largest step needs besides weights and pages: what a profile run would measure, from above.

    Args:
        model: On any device, the meta device included.
        dtype: Of the activations.
        step_tokens: Most tokens in a step.
        step_sequences: Most sequences in a step: so many rows of logits.
        encoder_tokens: Most tokens of media that a step encodes.
    """
    language_model: nn.Module = model.get_language_model() if supports_multimodal(model) else model  # type: ignore[operator]
    towers = {id(m) for tower in language_model.modules() if isinstance(tower, Encoder) for m in tower.modules()}
    inner = {id(m) for m in language_model.modules()} - towers
    linears = [m for m in model.modules() if isinstance(m, Linear)]
    heads = [m for m in linears if isinstance(m, ParallelLMHead)]
    decoder = _widest(m for m in linears if id(m) in inner and m not in heads)
    encoder = _widest(m for m in linears if id(m) not in inner and m not in heads)
    logits = 2 * step_sequences * max((m.output_size for m in heads), default=0) * torch.float32.itemsize
    rows = step_tokens * decoder + encoder_tokens * PATCHES_PER_TOKEN * encoder
    return rows * LIVE_COPIES * dtype.itemsize + logits


def _widest(layers: Iterable[Linear]) -> int:
    return max((layer.input_size + layer.output_size for layer in layers), default=0)


def available_bytes(device: torch.device) -> int:
    """Free memory of a device, in bytes; of a container, what its limit leaves."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    found = [n for n in (_meminfo(), _cgroup()) if n is not None]
    return min(found, default=_FALLBACK)


def _meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _cgroup() -> int | None:
    try:
        root = Path("/sys/fs/cgroup")
        limit = (root / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((root / "memory.current").read_text())
    except (OSError, ValueError):
        return None

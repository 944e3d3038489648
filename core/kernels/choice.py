"""Which kernels a model gets: the one place that looks at the machine."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdk.layers import (
    Activation,
    ActivationAndMul,
    Attention,
    CrossAttention,
    EncoderAttention,
    Layer,
    LayerNorm,
    PackedEncoderAttention,
    RMSNorm,
    SelectiveScan,
    StateSpaceDual,
)
from sdk.layers.base import Kernel
from sdk.layers.linear import Linear

from ..errors import InvalidConfigError
from . import sampling, sampling_few
from .linear import PackedLinear
from .sampling import Draw, Likeliest, Penalise

if TYPE_CHECKING:
    from .attention_compiled import CompiledAttention
    from .base import Kernels
    from .cross_attention_compiled import CompiledCrossAttention

logger = logging.getLogger(__name__)

SWITCH = "ENGINE_KERNELS"
"""In the environment: `torch`, `compiled` or `triton` in the place of what suits the device, to tell a kernel's fault from a
model's."""
FORMS = ("torch", "compiled", "triton")


def kernels_for(sample: Tensor) -> Kernels:
    """The kernels of a model, chosen by the device and dtype of one of its parameters: Triton's on a GPU, compiled ones on a CPU,
    and plain torch where these are not at hand."""
    from .plain import PlainKernels  # which needs the step, which needs the requests, whose logits need this module

    return triton_kernels(sample) or PlainKernels(compiled_kernels(sample))


def triton_kernels(sample: Tensor) -> Kernels | None:
    """Triton's kernels, where they can be used: on a GPU, or where they are asked for by name and its interpreter runs them."""
    if not _wants_triton(sample.device):
        return None
    try:
        from .triton.backend import TritonKernels
    except ImportError as e:
        logger.warning("triton is not at hand (%s): the kernels run in plain torch, which is slower", e)
        return None
    return TritonKernels()


def draw_form(device: torch.device) -> Draw:
    """What draws tokens on a device."""
    found: Draw = _sampling(device).draw
    return found


def likeliest_form(device: torch.device) -> Likeliest:
    """What takes the likeliest tokens on a device."""
    if device.type == "cpu" and asked_form() in (None, "compiled"):
        with suppress(ImportError):  # said by `compiled_kernels`
            from .likeliest import likeliest

            return likeliest
    return sampling.likeliest


def penalise_form(device: torch.device) -> Penalise:
    """What applies penalties on a device."""
    found: Penalise = _sampling(device).penalise
    return found


def _sampling(device: torch.device) -> Any:
    if _wants_triton(device):
        try:
            from .triton import sampling as triton_sampling
        except ImportError:  # said by `triton_kernels`
            return sampling
        return triton_sampling
    return sampling_few if device.type == "cpu" and asked_form() in (None, "compiled") else sampling


def _wants_triton(device: torch.device) -> bool:
    asked = asked_form()
    return asked == "triton" or (device.type == "cuda" and asked is None)


def asked_form() -> str | None:
    """What the environment asks for.

    Raises:
        InvalidConfigError: It asks for something else.
    """
    asked = os.environ.get(SWITCH)
    if asked and asked not in FORMS:
        raise InvalidConfigError(f"{SWITCH}={asked}: it takes {', '.join(FORMS)}", param=SWITCH)
    return asked or None


class CompiledKernels:
    """The numba kernels, for models of one dtype on a CPU."""

    def __init__(self, dtype: torch.dtype) -> None:
        from .attention_compiled import StepJobs
        from .compiled import prepare_threads

        prepare_threads()
        self.dtype, self.jobs, self.state_jobs = dtype, StepJobs(), StepJobs()

    def attention(self, layer: Attention, keys: Tensor, values: Tensor) -> CompiledAttention:
        """The compiled parts of a layer's attention."""
        from .attention_compiled import CompiledAttention

        return CompiledAttention(layer, keys, values, self.jobs)

    def cross_attention(self, layer: CrossAttention, keys: Tensor, values: Tensor) -> CompiledCrossAttention:
        """The compiled form of a layer's cross-attention."""
        from .cross_attention_compiled import CompiledCrossAttention

        return CompiledCrossAttention(layer, keys, values, self.state_jobs)

    def encoder_attention(self, layer: EncoderAttention | PackedEncoderAttention, fallback: Kernel) -> Kernel:
        """The compiled form of an encoder's attention; `fallback` serves what it cannot read."""
        from .encoder_attention_compiled import CompiledEncoderAttention, CompiledPackedAttention

        form = CompiledEncoderAttention if isinstance(layer, EncoderAttention) else CompiledPackedAttention
        return form(layer, self.dtype, fallback)

    def row_kernel(self, layer: Layer) -> Any:
        """A compiled form of a row-wise layer or a scan, or None."""
        if isinstance(layer, Linear):
            from .linear_int8 import int8_kernel

            return int8_kernel(layer, self.dtype)
        if isinstance(layer, SelectiveScan | StateSpaceDual):
            from .scan_compiled import CompiledSelectiveScan, CompiledStateSpaceDual

            return CompiledSelectiveScan(layer) if isinstance(layer, SelectiveScan) else CompiledStateSpaceDual(layer)
        from .pointwise import CompiledActivation, CompiledLayerNorm
        from .rows import CompiledRMSNorm, CompiledSiluAndMul

        if isinstance(layer, RMSNorm) and layer.weight.dtype == self.dtype:
            return CompiledRMSNorm(layer)
        if isinstance(layer, ActivationAndMul) and layer.name in ("silu", "swish"):
            return CompiledSiluAndMul(layer, self.dtype)
        if isinstance(layer, LayerNorm) and all(p.dtype is self.dtype for p in layer.parameters()):
            return CompiledLayerNorm(layer, self.dtype)
        if isinstance(layer, Activation) and CompiledActivation.knows(layer):
            return CompiledActivation(layer, self.dtype)
        return None


def compiled_kernels(sample: Tensor) -> CompiledKernels | None:
    """The compiled kernels where they can be used: on a CPU, in bfloat16 or float32, with numba at hand."""
    if (
        sample.device.type != "cpu"
        or sample.dtype not in (torch.bfloat16, torch.float32)
        or asked_form() not in (None, "compiled")
    ):
        return None
    try:
        return CompiledKernels(sample.dtype)
    except ImportError as e:
        logger.warning("numba is not at hand (%s): attention and norms run in plain torch, which is slower", e)
        return None


def packed_linear(weight: Tensor, bias: Tensor | None) -> PackedLinear:
    """A product with a weight that oneDNN packs, compiled for few rows where that can be."""
    if weight.dtype is torch.bfloat16 and asked_form() in (None, "compiled"):
        with suppress(ImportError):  # said by `compiled_kernels`
            from .linear_compiled import CompiledPackedLinear

            return CompiledPackedLinear(weight, bias)
    return PackedLinear(weight, bias)


def tied_table(head: Kernel | None) -> Kernel | None:
    """What reads the rows of an embedding from the packed weight of its head; None: it needs the plain one."""
    if isinstance(head, PackedLinear) and "numba" in sys.modules:
        from .tied import packed_table

        return packed_table(head)
    return None


def prepare_thread() -> None:
    """Have compiled kernels that are called from this thread use as many threads as torch does: numba remembers it by thread."""
    if "numba" in sys.modules:
        from .compiled import prepare_threads

        prepare_threads()

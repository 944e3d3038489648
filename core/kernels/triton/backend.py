"""The kernels in Triton, for models on a GPU."""

from __future__ import annotations

from torch import Tensor

from sdk.layers import (
    Activation,
    ActivationAndMul,
    Attention,
    CrossAttention,
    EncoderAttention,
    Experts,
    Layer,
    PackedEncoderAttention,
    RMSNorm,
    RotaryEmbedding,
    SelectiveScan,
    StateSpaceDual,
)
from sdk.layers.base import Kernel
from sdk.layers.linear import Linear
from sdk.quantization import Int8

from ...step import StepHolder
from .activations import KINDS, TritonActivation, TritonActivationAndMul
from .cross_attention import TritonCrossAttention
from .encoder_attention import TritonEncoderAttention, TritonPackedEncoderAttention
from .experts import TritonExperts
from .paged_attention import TritonAttention
from .quantized import TritonInt8Linear
from .rms_norm import TritonRMSNorm
from .rotary import TritonRotary
from .scan import TritonSelectiveScan, TritonStateSpaceDual


class TritonKernels:
    """See `Kernels`."""

    def attention(self, layer: Attention, keys: Tensor, values: Tensor, step: StepHolder) -> Kernel:
        """Attention over pages."""
        return TritonAttention(layer, keys, values, step)

    def cross_attention(
        self, layer: CrossAttention, keys: Tensor, values: Tensor, step: StepHolder, index: int
    ) -> Kernel:
        """Attention over encoder states."""
        return TritonCrossAttention(layer, keys, values, step, index)

    def other(self, layer: Layer) -> Kernel | None:
        """The layers that Triton has a form of; torch's own kernels serve the rest."""
        match layer:
            case RMSNorm():
                return TritonRMSNorm(layer)
            case ActivationAndMul() if layer.name in KINDS:
                return TritonActivationAndMul(layer)
            case Activation() if layer.name in KINDS:
                return TritonActivation(layer)
            case EncoderAttention():
                return TritonEncoderAttention(layer)
            case PackedEncoderAttention():
                return TritonPackedEncoderAttention(layer)
            case RotaryEmbedding():
                return TritonRotary(layer)
            case Linear() if isinstance(layer.quant_method, Int8):
                return TritonInt8Linear(layer, layer.quant_method)
            case Experts():
                return TritonExperts(layer)
            case SelectiveScan():
                return TritonSelectiveScan(layer)
            case StateSpaceDual():
                return TritonStateSpaceDual(layer)
        return None

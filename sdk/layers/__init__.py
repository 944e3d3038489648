"""The building blocks of a model, each with its reference maths in plain torch."""

from .activation import Activation, ActivationAndMul, GeluAndMul, SiluAndMul
from .attention import Attention, EncoderAttention, attention_reference
from .base import Layer
from .embedding import ParallelLMHead, VocabParallelEmbedding
from .linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from .norm import LayerNorm, RMSNorm
from .rotary import RotaryEmbedding

__all__ = [
    "Activation",
    "ActivationAndMul",
    "Attention",
    "ColumnParallelLinear",
    "EncoderAttention",
    "GeluAndMul",
    "Layer",
    "LayerNorm",
    "MergedColumnParallelLinear",
    "ParallelLMHead",
    "QKVParallelLinear",
    "RMSNorm",
    "ReplicatedLinear",
    "RotaryEmbedding",
    "RowParallelLinear",
    "SiluAndMul",
    "VocabParallelEmbedding",
    "attention_reference",
]

"""The building blocks of a model, each with its reference maths in plain torch."""

from .activation import Activation, ActivationAndMul, GeluAndMul, SiluAndMul
from .attention import Attention, EncoderAttention, attention_reference
from .base import Layer
from .bidirectional import BidirectionalAttention
from .cross_attention import CrossAttention
from .decoder import Decoder, PreNormBlock
from .embedding import ParallelLMHead, PositionEmbedding, VocabParallelEmbedding
from .experts import Experts, TopKRouter
from .linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from .mlp import GatedMLP
from .norm import LayerNorm, RMSNorm
from .packed_attention import PackedEncoderAttention
from .rotary import RotaryEmbedding
from .self_attention import SelfAttention, sliding_windows

__all__ = [
    "Activation",
    "ActivationAndMul",
    "Attention",
    "BidirectionalAttention",
    "ColumnParallelLinear",
    "CrossAttention",
    "Decoder",
    "EncoderAttention",
    "Experts",
    "GatedMLP",
    "GeluAndMul",
    "Layer",
    "LayerNorm",
    "MergedColumnParallelLinear",
    "PackedEncoderAttention",
    "ParallelLMHead",
    "PositionEmbedding",
    "PreNormBlock",
    "QKVParallelLinear",
    "RMSNorm",
    "ReplicatedLinear",
    "RotaryEmbedding",
    "RowParallelLinear",
    "SelfAttention",
    "SiluAndMul",
    "TopKRouter",
    "VocabParallelEmbedding",
    "attention_reference",
    "sliding_windows",
]

"""The building blocks of a model, each with its reference maths in plain torch."""

from .activation import Activation, ActivationAndMul, GeluAndMul, SiluAndMul
from .attention import Attention, EncoderAttention, attention_reference
from .base import Layer
from .bidirectional import BidirectionalAttention
from .causal_conv import CausalConv1d
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
from .mamba import MambaMixer, SelectiveScan
from .mamba2 import GatedRMSNorm, MambaMixer2, StateSpaceDual
from .mlp import MLP, GatedMLP
from .norm import LayerNorm, RMSNorm
from .packed_attention import PackedEncoderAttention
from .rotary import RotaryEmbedding
from .self_attention import SelfAttention, sliding_windows
from .short_conv import ShortConv
from .state import StateLayer, StateSpec

__all__ = [
    "Activation",
    "ActivationAndMul",
    "Attention",
    "BidirectionalAttention",
    "CausalConv1d",
    "ColumnParallelLinear",
    "CrossAttention",
    "Decoder",
    "EncoderAttention",
    "Experts",
    "GatedMLP",
    "GatedRMSNorm",
    "GeluAndMul",
    "Layer",
    "LayerNorm",
    "MLP",
    "MambaMixer",
    "MambaMixer2",
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
    "SelectiveScan",
    "SelfAttention",
    "ShortConv",
    "SiluAndMul",
    "StateLayer",
    "StateSpaceDual",
    "StateSpec",
    "TopKRouter",
    "VocabParallelEmbedding",
    "attention_reference",
    "sliding_windows",
]

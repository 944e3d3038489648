"""Whisper's audio encoder (Radford et al. 2022): two convolutions over a log-mel spectrogram, then a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sdk import Encoder, ModelContext
from sdk.layers import (
    Activation,
    ColumnParallelLinear,
    EncoderAttention,
    LayerNorm,
    QKVParallelLinear,
    RowParallelLinear,
)


class WhisperEncoderAttention(nn.Module):
    """Multi-head attention without a mask: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.qkv_proj = QKVParallelLinear(hidden_size, hidden_size // heads, heads, without_bias=("k_proj",))
        self.attn = EncoderAttention(heads, hidden_size // heads)
        self.out_proj = RowParallelLinear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.attn(*self.qkv_proj(x)))


class WhisperEncoderLayer(nn.Module):
    """One pre-norm block: `(items, n, hidden) -> (items, n, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self_attn = WhisperEncoderAttention(config.d_model, config.encoder_attention_heads)
        self.self_attn_layer_norm = LayerNorm(config.d_model)
        self.fc1 = ColumnParallelLinear(config.d_model, config.encoder_ffn_dim)
        self.activation_fn = Activation(config.activation_function)
        self.fc2 = RowParallelLinear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = LayerNorm(config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(self.activation_fn(self.fc1(self.final_layer_norm(x))))


class WhisperEncoder(Encoder):
    """Frames of 10 ms in, one state for every 20 ms out."""

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, config.d_model)
        self.layers = nn.ModuleList(WhisperEncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = LayerNorm(config.d_model)

    def forward(self, input_features: Tensor, *, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """Encode clips of full length.

        Args:
            input_features: `(items, mel bins, 2 * max_source_positions)`, log-mel.
            layers: 0 is the embedding, `i` the output of the `i`-th layer, -1 that of the last, before the last norm.

        Returns:
            `(items, max_source_positions, hidden)`, or a list of them in the order of `layers`.
        """
        frames = 2 * self.embed_positions.num_embeddings
        if input_features.shape[-1] != frames:
            raise ValueError(f"this encoder takes clips of {frames} frames, not {input_features.shape[-1]}")
        wanted = [len(self.layers)] if layers is None else [self._index(layer) for layer in layers]
        x = F.gelu(self.conv1(input_features.to(self.conv1.weight.dtype)))
        # The sum would lie as the convolution's result does, and with it every later one.
        x = F.gelu(self.conv2(x)).transpose(1, 2).contiguous()
        x = x + self.embed_positions.weight
        states = {0: x} if 0 in wanted else {}
        for i in range(1, max(wanted, default=0) + 1):
            x = self.layers[i - 1](x)
            if i in wanted:
                states[i] = x
        return self.layer_norm(x) if layers is None else [states[i] for i in wanted]

    def _index(self, layer: int) -> int:
        count = len(self.layers)
        if not -count - 1 <= layer <= count:
            raise ValueError(f"this encoder's states are {-count - 1} to {count}; asked for {layer}")
        return layer if layer >= 0 else layer + count + 1


__all__ = ["WhisperEncoder", "WhisperEncoderAttention"]

"""The frame of a pre-norm decoder: a block around attention and MLP, and the stack of blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .embedding import VocabParallelEmbedding
from .norm import RMSNorm
from .rotary import RotaryEmbedding


class PreNormBlock(nn.Module):
    """Attention and MLP, each behind a norm. Takes and returns a branch's output and the residual stream.

    The sum of the two is what papers call the block's input; the norm that comes next adds them, so that a kernel can do both.

    Args:
        attention: Called with positions and hidden states.
        mlp: Called with hidden states.
        hidden_size: Of the two norms.
        eps: Of the two norms.

    Shapes: positions `(tokens,)`, x and residual `(tokens, hidden)` → two of `(tokens, hidden)`.
    """

    def __init__(self, attention: nn.Module, mlp: nn.Module, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.self_attn, self.mlp = attention, mlp
        self.input_layernorm = RMSNorm(hidden_size, eps)
        self.post_attention_layernorm = RMSNorm(hidden_size, eps)

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.input_layernorm.join(x, residual)
        x, residual = self.post_attention_layernorm.join(self.self_attn(positions, x), residual)
        return self.mlp(x), residual


class Decoder(nn.Module):
    """The embedding, the blocks and the last norm.

    Args:
        config: Its `vocab_size` and `hidden_size`.
        rotary: What the blocks share; it is registered here. None: they need none.
        blocks: Called as `PreNormBlock` is.
        norm: The last norm.

    Shapes: positions `(tokens,)`, embeddings x `(tokens, hidden)` → `(tokens, hidden)`.
    """

    def __init__(self, config: Any, rotary: RotaryEmbedding | None, blocks: Iterable[nn.Module], norm: RMSNorm) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = rotary
        self.layers = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        residual: Tensor | None = None
        for layer in self.layers:
            x, residual = layer(positions, x, residual)
        return self.norm.join(x, residual)[0]

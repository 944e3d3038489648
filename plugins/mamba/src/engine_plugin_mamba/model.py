"""Mamba (Gu & Dao 2023) and Mamba-2 (Dao & Gu 2024): decoders without attention and without an MLP."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import MambaMixer, MambaMixer2, RMSNorm, VocabParallelEmbedding


class MambaBlock(nn.Module):
    """A mixer behind a norm: x and residual `(tokens, hidden)`, whose sum is the residual stream, → the same."""

    def __init__(self, mixer: nn.Module, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.norm, self.mixer = RMSNorm(hidden_size, eps), mixer

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.norm.join(x, residual)
        return self.mixer(x), residual


class MambaDecoder(nn.Module):
    """The embedding, the blocks and the last norm. What comes before a token is in the states, so positions are not used."""

    def __init__(self, config: Any, mixers: list[nn.Module]) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_epsilon
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, size)
        self.layers = nn.ModuleList(MambaBlock(mixer, size, eps) for mixer in mixers)
        self.norm = RMSNorm(size, eps)

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        residual: Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual)
        return self.norm.join(x, residual)[0]


class MambaForCausalLM(CausalLM):
    """Mamba 130M to 2.8B."""

    weight_map = WeightMap(
        rename=[(r"^backbone\.", "model."), (r"\bembeddings?\.weight", "embed_tokens.weight"), (r"\bnorm_f\.", "norm.")]
    )

    def build_decoder(self, config: Any) -> MambaDecoder:
        return MambaDecoder(config, [self.build_mixer(config) for _ in range(config.num_hidden_layers)])

    def build_mixer(self, config: Any) -> nn.Module:
        """What stands in the place of attention: `(tokens, hidden) -> (tokens, hidden)`."""
        return MambaMixer(
            config.hidden_size,
            config.intermediate_size,
            config.state_size,
            config.conv_kernel,
            config.time_step_rank,
            bias=config.use_bias,
            conv_bias=config.use_conv_bias,
            activation=config.hidden_act,
        )


class Mamba2ForCausalLM(MambaForCausalLM):
    """Mamba-2 130M to 2.7B, and Codestral Mamba."""

    def build_mixer(self, config: Any) -> nn.Module:
        return MambaMixer2(
            config.hidden_size,
            config.num_heads,
            config.head_dim,
            config.state_size,
            config.n_groups,
            config.conv_kernel,
            norm_eps=config.layer_norm_epsilon,
            bias=config.use_bias,
            conv_bias=config.use_conv_bias,
            activation=config.hidden_act,
            time_step_limit=tuple(config.time_step_limit),
        )

"""Mamba (Gu & Dao 2023) and Mamba-2 (Dao & Gu 2024): decoders without attention and without an MLP."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import CausalLM, WeightMap
from sdk.layers import Decoder, MambaMixer, MambaMixer2, RMSNorm


class MambaBlock(nn.Module):
    """A mixer behind a norm, with the residual stream of `PreNormBlock`. What comes before a token is in the states: positions
    are not used."""

    def __init__(self, config: Any, mixer: nn.Module) -> None:
        super().__init__()
        self.norm, self.mixer = RMSNorm(config.hidden_size, config.layer_norm_epsilon), mixer

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.norm.join(x, residual)
        return self.mixer(x), residual


class MambaForCausalLM(CausalLM):
    """Mamba 130M to 2.8B."""

    weight_map = WeightMap(
        rename=[(r"^backbone\.", "model."), (r"\bembeddings?\.weight", "embed_tokens.weight"), (r"\bnorm_f\.", "norm.")]
    )

    def build_decoder(self, config: Any) -> Decoder:
        blocks = (MambaBlock(config, self.build_mixer(config)) for _ in range(config.num_hidden_layers))
        return Decoder(config, None, blocks, RMSNorm(config.hidden_size, config.layer_norm_epsilon))

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

"""Mixers with states under the signatures that ported code calls: what they write to `output`, they return as well."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import layers as sdk_layers
from ..layers import StateLayer
from .refused import NotPortableError


class _FormerMixer(StateLayer):
    """What both mixers have in common.

    Ported loaders call `A_log` of the checkpoint `A`, and turn it into `-exp(A_log)` as they copy it; here it is kept as it
    comes, and turned when it is used.
    """

    def _rename_decay(self) -> None:
        self._parameters["A"] = self._parameters.pop("A_log")

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__("A" if name == "A_log" else name)

    def forward(self, hidden_states: Tensor, output: Tensor | None = None, *former: Any) -> Tensor:
        """`(tokens, hidden) -> (tokens, hidden)`."""
        if any(given is not None for given in former):
            raise NotPortableError("a mixer takes no cache and no metadata: it keeps its own states")
        made: Tensor = super().forward(hidden_states)
        return made if output is None else output.copy_(made)


class MambaMixer(_FormerMixer, sdk_layers.MambaMixer):
    """Mamba's mixer; norms of it have weights."""

    def __init__(
        self,
        hidden_size: int,
        ssm_state_size: int,
        conv_kernel_size: int,
        intermediate_size: int,
        time_step_rank: int,
        use_conv_bias: bool,
        use_bias: bool,
        use_rms_norm: bool,
        rms_norm_has_weight: bool = True,
        rms_norm_eps: float = 1e-5,
        activation: str = "silu",
        is_lora_enabled: bool = False,
        model_config: Any = None,
        cache_config: Any = None,
        prefix: str = "",
    ) -> None:
        if use_rms_norm and not rms_norm_has_weight:
            raise NotPortableError("MambaMixer(rms_norm_has_weight=False): norms of a mixer have weights here")
        super().__init__(
            hidden_size,
            intermediate_size,
            ssm_state_size,
            conv_kernel_size,
            time_step_rank,
            bias=use_bias,
            conv_bias=use_conv_bias,
            activation=activation,
            norm_eps=rms_norm_eps if use_rms_norm else None,
            prefix=prefix,
        )
        self._rename_decay()


class MambaMixer2(_FormerMixer, sdk_layers.MambaMixer2):
    """Mamba-2's mixer, with its gated norm."""

    def __init__(
        self,
        hidden_size: int,
        ssm_state_size: int,
        conv_kernel_size: int,
        intermediate_size: int,
        use_conv_bias: bool,
        use_bias: bool,
        n_groups: int = 1,
        num_heads: int = 128,
        head_dim: int = 64,
        rms_norm_eps: float = 1e-5,
        activation: str = "silu",
        use_rms_norm: bool = True,
        model_config: Any = None,
        cache_config: Any = None,
        quant_config: Any = None,
        prefix: str = "",
    ) -> None:
        if not use_rms_norm or intermediate_size != num_heads * head_dim:
            raise NotPortableError("MambaMixer2 has a gated norm here, over num_heads * head_dim channels")
        super().__init__(
            hidden_size,
            num_heads,
            head_dim,
            ssm_state_size,
            n_groups,
            conv_kernel_size,
            norm_eps=rms_norm_eps,
            bias=use_bias,
            conv_bias=use_conv_bias,
            activation=activation,
            prefix=prefix,
        )
        self._rename_decay()


__all__ = ["MambaMixer", "MambaMixer2"]

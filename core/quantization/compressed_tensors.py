"""Checkpoints in the compressed-tensors format, with weights in int8 (`int-quantized`: W8A8 and W8A16).

Which layers are quantized is said by their names as the checkpoint spells them: groups of targets, and a list of those to ignore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdk.layers import Experts, Layer
from sdk.layers.linear import Linear
from sdk.quantization import Int8, QuantizationConfig, QuantizeMethod, name_matches

from ..errors import InvalidConfigError

FORMAT = "int-quantized"
LINEAR = ("Linear",)
"""What the format calls the kind of every layer that is one product."""


class Values(BaseModel):
    """How one kind of values (weights, inputs) is quantized."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    strategy: str | None = None
    dynamic: bool | str = False


class Group(BaseModel):
    """Layers that are quantized alike."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    targets: tuple[str, ...] = ()
    weights: Values | None = None
    input_activations: Values | None = None
    output_activations: Values | None = None
    format: str | None = None


class Stored(BaseModel):
    """`quantization_config` of config.json, as far as it matters here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: str | None = None
    quantization_status: str = "compressed"
    ignore: tuple[str, ...] = ()
    config_groups: dict[str, Group] = Field(default_factory=dict)
    kv_cache_scheme: dict[str, Any] | None = None
    sparsity_config: dict[str, Any] | None = None
    transform_config: dict[str, Any] | None = None


class CompressedTensorsConfig(QuantizationConfig):
    """See the file's docstring."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.methods = {name: Int8(stored=True, quantize_inputs=g.input_activations is not None)
                        for name, g in stored.config_groups.items()}  # fmt: skip

    @classmethod
    def get_name(cls) -> str:
        return "compressed-tensors"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CompressedTensorsConfig:
        try:
            stored = Stored(**config)
        except ValidationError as e:
            told = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in e.errors()[:5])
            raise InvalidConfigError(f"quantization_config: {told}", param="quantization_config") from None
        why = _unsupported(stored)
        if why is not None:
            raise InvalidConfigError(
                f"quantization_config: {why}. Of compressed-tensors, {FORMAT} with int8 weights is read: symmetric, a scale for "
                "each output; inputs as they are (W8A16) or in int8, a scale for each token (W8A8)",
                param="quantization_config",
            )
        return cls(stored)

    def get_quant_method(self, layer: Layer, name: str) -> QuantizeMethod | None:
        if not isinstance(layer, (Linear, Experts)):
            return None
        if name_matches(name, self.stored.ignore, kinds=LINEAR):
            return None
        groups = self.stored.config_groups.items()
        # A name says more than a kind.
        for kinds in ((), LINEAR):
            for group, values in groups:
                if name_matches(name, values.targets, kinds=kinds):
                    return self.methods[group]
        return None


def _unsupported(stored: Stored) -> str | None:
    """What this reader cannot do of what the config asks for; None: it can do all."""
    if not stored.config_groups:
        return "it has no config_groups"
    if stored.quantization_status != "compressed":
        return f"quantization_status is {stored.quantization_status!r}, so the weights are not stored in few bits"
    for name in ("kv_cache_scheme", "transform_config"):
        if getattr(stored, name):
            return f"{name} is not supported"
    if stored.sparsity_config and stored.sparsity_config.get("format", "dense") != "dense":
        return f"sparsity_config asks for {stored.sparsity_config['format']!r}"
    for name, group in stored.config_groups.items():
        form = group.format or stored.format
        if form != FORMAT:
            return f"{name}: format is {form!r}"
        if group.weights is None:
            return f"{name}: it quantizes no weights"
        if not _is_int8(group.weights) or group.weights.strategy not in (None, "channel") or group.weights.dynamic:
            return f"{name}: weights are {_told(group.weights)}"
        inputs = group.input_activations
        if inputs is not None and not (_is_int8(inputs) and inputs.strategy == "token" and inputs.dynamic is True):
            return f"{name}: input_activations are {_told(inputs)}"
        if group.output_activations is not None:
            return f"{name}: output_activations are {_told(group.output_activations)}"
    return None


def _is_int8(values: Values) -> bool:
    return (values.num_bits, values.type, values.symmetric) == (8, "int", True)


def _told(values: Values) -> str:
    symmetric = "symmetric" if values.symmetric else "asymmetric"
    scales = "dynamic" if values.dynamic else "static"
    return f"{values.type}{values.num_bits}, {symmetric}, {scales}, a scale for each {values.strategy or 'output'}"

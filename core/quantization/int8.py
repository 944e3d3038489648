"""`quantization="int8"`: linear layers quantized at load, symmetric, a scale for each output.

Of the head the weight alone, unless it is to stay: what its inputs lose would go straight into the logits. Not the routers of
mixtures of experts, which decide and cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sdk.layers import Layer, ParallelLMHead, TopKRouter
from sdk.layers.linear import Linear
from sdk.quantization import Int8, QuantizationConfig, QuantizeMethod, name_matches

from ..errors import InvalidConfigError


class Int8Options(BaseModel):
    """What a user may say besides the name.

    Attributes:
        quant_method: The scheme's name.
        ignore: Layers that stay: names as the checkpoint spells them, or `"re:…"`.
        lm_head: Whether the head is quantized too, its weight alone; one that is tied to the embedding never is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    quant_method: str
    ignore: tuple[str, ...] = ()
    lm_head: bool = True


class Int8Config(QuantizationConfig):
    """Weights and inputs of every product but the head's in 8 bits; each row of the input is quantized as it comes."""

    method: ClassVar[Int8] = Int8()
    head: ClassVar[Int8] = Int8(quantize_inputs=False)

    def __init__(self, options: Int8Options) -> None:
        self.options = options

    @classmethod
    def get_name(cls) -> str:
        return "int8"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Int8Config:
        try:
            return cls(Int8Options(**config))
        except ValidationError as e:
            told = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in e.errors()[:5])
            known = ", ".join(name for name in Int8Options.model_fields if name != "quant_method")
            raise InvalidConfigError(
                f"the options of quantization {cls.get_name()!r}: {told}; it takes {known}", param="quantization"
            ) from None

    def get_quant_method(self, layer: Layer, name: str) -> QuantizeMethod | None:
        if not isinstance(layer, Linear) or isinstance(layer, TopKRouter):
            return None
        if name_matches(name, self.options.ignore):
            return None
        if isinstance(layer, ParallelLMHead):
            return self.head if self.options.lm_head else None
        return self.method


class Int8WeightOnlyConfig(Int8Config):
    """Weights in 8 bits, products in the model's dtype."""

    method: ClassVar[Int8] = Int8(quantize_inputs=False)

    @classmethod
    def get_name(cls) -> str:
        return "int8_weight_only"

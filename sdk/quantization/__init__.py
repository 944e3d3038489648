"""How linear layers store their weights in fewer bits: the contract of a scheme, and int8 in plain torch."""

from .base import QuantizationConfig, QuantizeMethod, exact_parameter, name_matches
from .int8 import Int8, int8_product, quantize_rows

__all__ = [
    "Int8",
    "QuantizationConfig",
    "QuantizeMethod",
    "exact_parameter",
    "int8_product",
    "name_matches",
    "quantize_rows",
]

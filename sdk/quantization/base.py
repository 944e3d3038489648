"""The contract of a quantization scheme: `QuantizationConfig` chooses by a layer's name, `QuantizeMethod` does it to one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._contract import check_class, hook

if TYPE_CHECKING:
    from ..layers.base import Layer
    from ..layers.linear import Linear


class QuantizeMethod(ABC):
    """What is done to a linear layer. One object may serve many layers: what belongs to a layer is kept in the layer.

    The engine calls `create_weights` while the model has no memory yet, fills the parameters from the checkpoint, calls
    `process_weights_after_loading` as soon as all of the layer's are filled, and `apply` for every product. Two methods are
    equal where their class and attributes are.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls)

    @hook  # noqa: B027  # the default does nothing
    def create_weights(self, layer: Linear) -> None:
        """Put the parameters that the checkpoint fills in the place of the layer's own, by `torch.empty`.

        The default keeps them: the weight is loaded as it is, `(output_size, input_size)`, and quantized afterwards. Of a
        fused layer, each parameter's first dimension is that of the output, of which every part fills its rows.
        """

    @hook
    @abstractmethod
    def process_weights_after_loading(self, layer: Linear) -> None:
        """Make what `apply` reads of what was loaded; called once. Parameters that it takes away free their memory.

        Where it is plain torch that looks at no value, the engine runs it without memory as well, to know the bytes it leaves.
        """

    @hook
    @abstractmethod
    def apply(self, layer: Linear, x: Tensor) -> Tensor:
        """The product with the layer's weight, its bias added: `(..., input_size) -> (..., output_size)`, in the dtype of x."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))


class QuantizationConfig(ABC):
    """A scheme, with its options: what to do to which layer.

    Registered under its name, by the entry point group `engine.v1.quantization` or `core.registry.QUANTIZATION.register`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls)

    @classmethod
    @hook
    @abstractmethod
    def get_name(cls) -> str:
        """The name it is registered under: what `LLM(quantization=…)` takes and a checkpoint calls its `quant_method`."""

    @classmethod
    @hook
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> QuantizationConfig:
        """Make the scheme.

        Args:
            config: A checkpoint's `quantization_config`, or what the user gave: always with `quant_method`.

        Raises:
            InvalidConfigError: It cannot be read, or asks for what the scheme cannot do; the key is named.
        """

    @hook
    @abstractmethod
    def get_quant_method(self, layer: Layer, name: str) -> QuantizeMethod | None:
        """What is done to a layer; None: it stays as it is.

        Asked once for each name under which the checkpoint knows the layer: a fused one is asked for each of its parts, and all
        answers must be equal. Embeddings and experts are asked for as well, for schemes to refuse what they cannot do.
        A layer whose weight another one reads too (a tied head) is not.
        """


def name_matches(name: str, patterns: Iterable[str], *, kinds: Iterable[str] = ()) -> bool:
    """Whether a layer is meant by one of these patterns.

    Args:
        name: The layer's.
        patterns: A name as a whole, `"re:"` and a regular expression that matches from the name's beginning, or a kind.
        kinds: What kinds the layer is of, e.g. `("Linear",)`.
    """
    named = {name, *kinds}
    return any(
        re.match(pattern[3:], name) is not None if pattern.startswith("re:") else pattern in named
        for pattern in patterns
    )


def exact_parameter(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    """A parameter without values that keeps its dtype, whatever the model's is: integers, or scales in float32."""
    parameter = nn.Parameter(torch.empty(*shape, dtype=dtype), requires_grad=False)
    parameter.keeps_dtype = True  # type: ignore[attr-defined]
    return parameter

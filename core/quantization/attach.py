"""Put a scheme's methods on the layers of a model that has no memory yet, and tell what that leaves."""

from __future__ import annotations

import copy
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from sdk.layers import Experts, Layer, VocabParallelEmbedding
from sdk.layers.linear import Linear
from sdk.quantization import QuantizationConfig, QuantizeMethod

from ..errors import EngineError, InvalidConfigError, PluginContractError
from ..plugins.faults import describe
from .names import own_names

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Quantized:
    """What a scheme does to a model.

    Attributes:
        name: The scheme's.
        methods: Path of each layer that it changes → how.
        bytes: Of the same layers: what their parameters take when they are ready.
        left: Layers with weights that stay as they are; where several differ by numbers alone, a star and how many there are.
    """

    name: str
    methods: Mapping[str, QuantizeMethod]
    bytes: Mapping[str, int]
    left: tuple[str, ...]


def attach_scheme(
    model: nn.Module, scheme: QuantizationConfig, names: Mapping[str, Sequence[str]], dtype: torch.dtype
) -> Quantized:
    """Ask the scheme for each layer, and have its methods create their parameters.

    Args:
        model: On the meta device.
        scheme: Which.
        names: See `checkpoint_names`; layers that are not there are asked for by their own names.
        dtype: Of the model.

    Raises:
        InvalidConfigError: It wants what cannot be: parts of one product quantized in different ways, or layers that are none.
        PluginContractError: A hook of the scheme fails.
    """
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    methods: dict[str, QuantizeMethod] = {}
    left: list[str] = []
    for path, layer in model.named_modules():
        if not isinstance(layer, (Linear, Experts, VocabParallelEmbedding)):
            continue
        shared = any(owners[id(p)] > 1 for p in layer.parameters(recurse=False))
        method = None if shared else _asked(scheme, layer, path, tuple(names.get(path) or own_names(path, layer)))
        if method is None:
            left.append(path)
            continue
        assert isinstance(layer, Linear)
        methods[path] = layer.quant_method = method
        with torch.device("meta"):
            call(scheme, path, method.create_weights, layer)
    kept = {path: _kept_bytes(model.get_submodule(path), dtype) for path in methods}
    return Quantized(scheme.get_name(), methods, kept, _starred(left))


def call(scheme: QuantizationConfig | str, path: str, hook: Callable[..., T], *arguments: Any) -> T:
    """Call a hook so that what it raises names scheme, hook and layer."""
    name = scheme if isinstance(scheme, str) else scheme.get_name()
    try:
        return hook(*arguments)
    except EngineError:
        raise
    except Exception as e:
        raise PluginContractError(
            f"the quantization scheme {name!r}: {hook.__name__} raised {describe(e)} for layer {path!r}"
        ) from e


def _asked(scheme: QuantizationConfig, layer: Layer, path: str, names: Sequence[str]) -> QuantizeMethod | None:
    answers = [call(scheme, path, scheme.get_quant_method, layer, name) for name in names]
    for name, answer in zip(names, answers):
        if answer is not None and not isinstance(answer, QuantizeMethod):
            raise PluginContractError(
                f"the quantization scheme {scheme.get_name()!r}: get_quant_method returned {answer!r:.80} for {name!r}; "
                "it is to return a QuantizeMethod or None"
            )
        if answer != answers[0]:
            raise InvalidConfigError(
                f"the quantization scheme {scheme.get_name()!r} treats {names[0]!r} and {name!r} in different ways, but they are "
                f"computed as one product ({path}); quantize both or neither",
                param="quantization",
            )
    method: QuantizeMethod | None = answers[0]
    if method is not None and not isinstance(layer, Linear):
        raise InvalidConfigError(
            f"the quantization scheme {scheme.get_name()!r} wants to change {names[0]!r}, which is no linear layer here but "
            f"{type(layer).__name__} ({path}): such layers cannot be quantized yet; put them on the scheme's ignore list",
            param="quantization",
        )
    return method


def _kept_bytes(layer: nn.Module, dtype: torch.dtype) -> int:
    """What a layer takes after its method has processed it: found by doing that to a twin, where it costs nothing."""
    assert isinstance(layer, Linear)
    assert layer.quant_method is not None
    twin = copy.copy(layer)
    twin._parameters, twin._buffers = {}, dict(layer._buffers)
    for name, parameter in layer.named_parameters(recurse=False):
        kind = parameter_dtype(parameter, dtype)
        twin._parameters[name] = nn.Parameter(
            torch.empty(parameter.shape, dtype=kind, device="meta"), requires_grad=False
        )
    loaded = _bytes(twin)
    try:
        with torch.no_grad():
            layer.quant_method.process_weights_after_loading(twin)
    except Exception as e:  # it looks at values: what is loaded is the most that it will keep
        logger.info("what %s leaves of a layer is unknown: %s", type(layer.quant_method).__qualname__, describe(e))
        return loaded
    return _bytes(twin)


def _bytes(layer: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)])


def parameter_dtype(parameter: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """What a parameter of the model will be: the model's dtype, but for integers and what keeps its own."""
    exact = getattr(parameter, "keeps_dtype", False) or not parameter.is_floating_point()
    return parameter.dtype if exact else dtype


def _starred(paths: Sequence[str]) -> tuple[str, ...]:
    alike: dict[str, list[str]] = {}
    for path in paths:
        alike.setdefault(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path), []).append(path)
    return tuple(same[0] if len(same) == 1 else f"{starred} ({len(same)})" for starred, same in alike.items())

"""Make each layer's weight smaller as soon as all of it is loaded, so that the whole model never stands in full precision."""

from __future__ import annotations

import torch
from torch import nn

from sdk.layers.linear import Linear

from .attach import Quantized, call


class Finisher:
    """Follows the loading of a model, and processes layer by layer.

    Args:
        model: With memory.
        quantized: What was attached to it; None: nothing, and there is nothing to do.
    """

    def __init__(self, model: nn.Module, quantized: Quantized | None) -> None:
        self.name = quantized.name if quantized is not None else ""
        self.model = model
        self._waiting: dict[str, set[str]] = {}
        self.parameters: set[str] = set()
        """Names of all parameters of the layers that are done, also of those that processing made."""
        for path in quantized.methods if quantized is not None else ():
            layer = model.get_submodule(path)
            self._waiting[path] = {f"{path}.{name}" for name, _ in layer.named_parameters(recurse=False)}

    def filled(self, parameter: str) -> None:
        """A parameter is complete."""
        path = parameter.rpartition(".")[0]
        waiting = self._waiting.get(path)
        if waiting is not None:
            waiting.discard(parameter)
            if not waiting:
                self._finish(path)

    def all_filled(self, parameters: set[str]) -> None:
        """For models that load by themselves: what they say is complete."""
        for parameter in sorted(parameters):
            self.filled(parameter)

    def _finish(self, path: str) -> None:
        layer = self.model.get_submodule(path)
        assert isinstance(layer, Linear)
        assert layer.quant_method is not None
        del self._waiting[path]
        before = dict(layer.named_parameters(recurse=False))
        with torch.no_grad():
            call(self.name, path, layer.quant_method.process_weights_after_loading, layer)
        after = dict(layer.named_parameters(recurse=False))
        for parameter in before.values():
            if not any(parameter is kept for kept in after.values()):
                parameter.data = parameter.data.new_empty(0)  # the loader still holds it
        self.parameters |= {f"{path}.{name}" for name in {*before, *after}}

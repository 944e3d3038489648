"""`AutoWeightsLoader` and `WeightsMapper`: how today's models of vLLM load, each part by its own `load_weights`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from ..errors import UnexpectedWeightsError
from .weights import default_weight_loader

Weights = Iterable[tuple[str, Tensor]]


@dataclass
class WeightsMapper:
    """Renames tensors: parts anywhere first, then the beginning, then the end. A value of None drops the tensor."""

    orig_to_new_substr: Mapping[str, str | None] = field(default_factory=dict)
    orig_to_new_prefix: Mapping[str, str | None] = field(default_factory=dict)
    orig_to_new_suffix: Mapping[str, str | None] = field(default_factory=dict)

    def apply(self, weights: Weights) -> Iterator[tuple[str, Tensor]]:
        """The pairs under their new names, without those that are dropped."""
        for name, tensor in weights:
            mapped = self.map_name(name)
            if mapped is not None:
                yield mapped, tensor

    def map_name(self, name: str) -> str | None:
        """A new name; None: it is dropped."""
        for old, new in self.orig_to_new_substr.items():
            if old in name:
                if new is None:
                    return None
                name = name.replace(old, new)
        for old, new in self.orig_to_new_prefix.items():
            if name.startswith(old):
                if new is None:
                    return None
                name = new + name.removeprefix(old)
        for old, new in self.orig_to_new_suffix.items():
            if name.endswith(old):
                if new is None:
                    return None
                name = name.removesuffix(old) + new
        return name


class AutoWeightsLoader:
    """Hands each tensor to the part that its name begins with: to the part's own `load_weights`, else to its parameters.

    Args:
        module: Whose weights they are.
        skip_prefixes, skip_substrs: Names that are dropped.
        ignore_unexpected_prefixes: Names that may have no parameter.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        skip_prefixes: Sequence[str] | None = None,
        skip_substrs: Sequence[str] | None = None,
        ignore_unexpected_prefixes: Sequence[str] | None = None,
    ) -> None:
        self.module = module
        self.skip_prefixes, self.skip_substrs = tuple(skip_prefixes or ()), tuple(skip_substrs or ())
        self.ignored = tuple(ignore_unexpected_prefixes or ())

    def load_weights(self, weights: Weights, *, mapper: WeightsMapper | None = None) -> set[str]:
        """Fill the module; the names of the parameters that were filled.

        Raises:
            UnexpectedWeightsError: A name has no parameter.
        """
        renamed = weights if mapper is None else mapper.apply(weights)
        kept = ((name, tensor) for name, tensor in renamed if not self._skipped(name))
        return set(self._load("", self.module, kept))

    def _skipped(self, name: str) -> bool:
        return name.startswith(self.skip_prefixes) or any(part in name for part in self.skip_substrs)

    def _load(self, prefix: str, module: nn.Module, weights: Weights) -> Iterator[str]:
        own: Any = getattr(module, "load_weights", None)
        if module is not self.module and callable(own):
            yield from (f"{prefix}{name}" for name in own(weights) or ())
            return
        children, parameters = dict(module.named_children()), dict(module.named_parameters(recurse=False))
        parameters |= {name: buffer for name, buffer in module.named_buffers(recurse=False) if name not in parameters}  # type: ignore[misc]
        for head, group in groupby(weights, key=lambda pair: pair[0].partition(".")[0]):
            rest = ((name.partition(".")[2], tensor) for name, tensor in group)
            if head in children:
                yield from self._load(f"{prefix}{head}.", children[head], rest)
                continue
            for _, tensor in rest:
                name = f"{prefix}{head}"
                if head in parameters:
                    getattr(parameters[head], "weight_loader", default_weight_loader)(parameters[head], tensor)
                    yield name
                elif not name.startswith(self.ignored or ("\0",)):
                    raise UnexpectedWeightsError(
                        f"no parameter is called {name}; known there: {', '.join(parameters) or 'none'}"
                    )

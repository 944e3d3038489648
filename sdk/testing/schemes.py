"""The kit for a quantization scheme: what its laws look at, and how they are run. The laws are in `scheme_laws.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from .. import registry
from .._api import DISTRIBUTION
from ..errors import InvalidConfigError
from ..layers import Layer
from ..layers.linear import Linear
from ..quantization import QuantizationConfig, QuantizeMethod
from .law import LawResult, NotApplicable
from .levels import IN_PROCESS
from .runtime import OpenModel, Runtime, Settings, find_runtime
from .source import package_files
from .subject import Subject
from .suite import Report, Suite

HOST = "SchemeHostForCausalLM"
_HOST_MODULE = f"{__package__}.scheme_host"


class Chosen(NamedTuple):
    """A linear layer of the host that the scheme changes, filled and in full precision, its name and how it is changed."""

    name: str
    layer: Linear
    method: QuantizeMethod

    def quantized(self) -> Linear:
        """A copy of the layer with its weight made smaller, as the engine does it."""
        made = deepcopy(self.layer)
        with torch.no_grad():
            self.method.create_weights(made)
            for name, parameter in self.layer.named_parameters(recurse=False):
                getattr(made, name).data.copy_(parameter)
            self.method.process_weights_after_loading(made)
        made.quant_method = self.method
        return made


class SchemeSubject(Subject):
    """One scheme under test, and the kit's own model that it is applied to.

    Args:
        scheme: Its name.
        runtime: The engine.
    """

    def __init__(self, scheme: str, runtime: Runtime) -> None:
        registry.register(HOST, f"{_HOST_MODULE}:{HOST}", replace=True, tiny=f"{_HOST_MODULE}:make")
        super().__init__(HOST, runtime)
        self.scheme = scheme

    def close(self) -> None:
        registry.unregister(HOST)
        super().close()

    def describe(self) -> str:
        return self.runtime.scheme_plugin(self.scheme)

    @property
    def scheme_class(self) -> type[QuantizationConfig]:
        """What is registered under the name."""
        return self.runtime.scheme(self.scheme)

    @cached_property
    def made(self) -> QuantizationConfig:
        """The scheme, as it is where a user gives its name alone.

        Raises:
            NotApplicable: Its name alone does not make it: it is for checkpoints that say more.
        """
        try:
            return self.scheme_class.from_config({"quant_method": self.scheme})
        except InvalidConfigError as error:
            raise NotApplicable(f"its name alone does not make it: {error}") from error

    @cached_property
    def sources(self) -> list[Path]:
        """The files of the scheme's package."""
        if self.describe().startswith(f"{DISTRIBUTION} "):
            raise NotApplicable("it is the engine's own, and no plugin")
        return package_files(self.scheme_class.__module__)

    @cached_property
    def chosen(self) -> Sequence[Chosen]:
        """What the scheme changes of the host.

        Raises:
            NotApplicable: It reads what a checkpoint of its own format stores, and makes nothing smaller by itself.
        """
        found = []
        for path, layer in self.reference.named_modules():
            if not isinstance(layer, Linear):
                continue
            name = names_of(path, layer)[0]
            method = self.made.get_quant_method(layer, name)
            if method is None:
                continue
            twin = deepcopy(layer)
            method.create_weights(twin)
            if _shapes(twin) != _shapes(layer):
                raise NotApplicable("it reads what a checkpoint of its own format stores")
            found.append(Chosen(name, layer, method))
        return found

    @contextmanager
    def opened_quantized(self, settings: Settings) -> Iterator[OpenModel]:
        """The host in an engine, with the scheme."""
        with self.opened_with(replace(settings, quantization=self.scheme)) as opened:
            yield opened


def names_of(path: str, layer: Layer) -> tuple[str, ...]:
    """What a checkpoint calls a layer: of a fused one its parts."""
    parent = path.rpartition(".")[0]
    return tuple(f"{parent}.{part}" for part in layer.part_rows() if part) or (path,)


def _shapes(layer: Linear) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in layer.named_parameters(recurse=False)}


class SchemeSuite(Suite):
    """The laws about one scheme; a context manager.

    Args:
        scheme: Its name.
        runtime: The engine; by default, the installed one.
    """

    def __init__(self, scheme: str, runtime: Runtime | None = None) -> None:
        from .scheme_laws import LAWS

        self.subject = SchemeSubject(scheme, runtime or find_runtime())
        self._results = {}
        self._laws = {law.id: law for law in LAWS}

    def report(self, level: int = IN_PROCESS, lowest: int = 0, told: Callable[[LawResult], object] = id) -> Report:
        """Check the laws between two levels; `told` is called with each result as it is known."""
        results = self._checked((law for law in self._laws.values() if lowest <= law.level <= level), told)
        assert isinstance(self.subject, SchemeSubject)
        return Report(self.subject.scheme, self.subject.describe(), results)


def verify_scheme(
    scheme: str,
    level: int = IN_PROCESS,
    lowest: int = 0,
    *,
    runtime: Runtime | None = None,
    told: Callable[[LawResult], object] = id,
) -> Report:
    """Check every law about a quantization scheme up to a level.

    Args:
        scheme: Its name.
        level: The highest level.
        lowest: The lowest level; what its laws need of lower ones is checked and not reported.
        runtime: The engine; by default, the installed one.
        told: Called with each result as it is known.
    """
    with closing(SchemeSuite(scheme, runtime)) as suite:
        return suite.report(level, lowest, told)

"""`MODELS`, `PROCESSORS`, `DUMMY_INPUTS`, `TRANSCRIPTION`: who provides which part, keyed by architecture. `QUANTIZATION`: the
schemes by name.

Read-only views of what is installed that import a part when it is asked for, plus `register` for notebooks and tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdk import registry as table
from sdk.errors import PluginError, PluginMissingError

from .plugins import Catalog
from .plugins.objects import ObjectRegistry


class NotRegisteredError(PluginMissingError, KeyError):
    """No plugin has this part for the architecture; a `KeyError`, as mappings raise it."""

    def __str__(self) -> str:
        return self.message


class Registry(Mapping[str, Any]):
    """One part of every architecture, e.g. its model class.

    Iterating yields the architectures that have the part; plugins that cannot be used are passed over. To know, the
    torch-free plugin modules are imported for every part but the model, which all architectures have.
    """

    def __init__(self, part: str) -> None:
        self._part = part

    def __getitem__(self, architecture: str) -> Any:
        try:
            plugin = Catalog.installed().resolve(architecture)
        except PluginMissingError as error:
            raise NotRegisteredError(error.message, param=error.param) from error
        if not plugin.has(self._part):
            raise NotRegisteredError(f"{plugin.describe()} has no {self._part} for {architecture}", param=architecture)
        return plugin.load(self._part)

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, str):
            return False
        decision = Catalog.installed().decide(architecture)
        if self._part == "model":
            return decision.error is None
        try:
            return Catalog.installed().resolve(architecture).has(self._part)
        except PluginError:
            return False

    def __iter__(self) -> Iterator[str]:
        claimed = {claim.name for claim in Catalog.installed().claims() if claim.kind == "architecture"}
        return iter(sorted(name for name in {*claimed, *table.registered()} - {"*"} if name in self))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<registry of {self._part} parts: read-only; register(architecture, class) adds one in this process>"

    def register(self, architecture: str, value: Any, *, replace: bool = False, **fields: Any) -> None:
        """Register this part of an architecture in this process; see `sdk.registry.register`.

        Args:
            architecture: The HF architecture string.
            value: A class, which serves in this process only, or `"module:attribute"`, which workers can import too.
            replace: Whether another registration may be replaced.
            **fields: Further parts and fields of the `Architecture`.
        """
        table.register(architecture, value, part=self._part, replace=replace, **fields)


MODELS = Registry("model")
PROCESSORS = Registry("processor")
DUMMY_INPUTS = Registry("dummy_inputs")
TRANSCRIPTION = Registry("transcription")


def _check_scheme(name: str, scheme: Any) -> str | None:
    from sdk.quantization import QuantizationConfig

    if not (isinstance(scheme, type) and issubclass(scheme, QuantizationConfig)):
        return "is no subclass of sdk.QuantizationConfig"
    if scheme.get_name() != name:
        return f"is registered as {name!r}, but its get_name() says {scheme.get_name()!r}"
    return None


QUANTIZATION = ObjectRegistry("quantization", "quantization scheme", _check_scheme)

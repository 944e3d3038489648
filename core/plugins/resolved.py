"""`ResolvedPlugin`: the one answer to "who runs this architecture"; its parts are imported when they are first used."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdk.errors import InvalidRequestError, PluginContractError, PluginError
from sdk.registry import IN_PROCESS, PARTS, Registration

from .claims import Claim
from .faults import broken, call, import_error, is_strict
from .guard import watch_import
from .loading import import_module, warn_of

if TYPE_CHECKING:
    from sdk.config_view import PartCapabilities
    from sdk.spec import Architecture, Capabilities


@dataclass(frozen=True)
class ResolvedPlugin:
    """An architecture, the distribution that runs it, and a door to its parts.

    Attributes:
        architecture: The plugin's record; the name is the one that was asked for, also where a fallback answered.
        claim: The entry point that was chosen.
        registration: What was registered in this process for the architecture; its objects come before targets.
        warnings: What importing the plugin changed in the process, a sentence each.
        parts: Tells what the parts of the model can do that other plugins run.
    """

    architecture: Architecture
    claim: Claim
    registration: Registration | None = None
    warnings: tuple[str, ...] = ()
    parts: PartCapabilities | None = field(default=None, repr=False, compare=False)
    on_failure: Callable[[str, PluginError], None] | None = field(default=None, repr=False, compare=False)
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _failed: dict[str, PluginError] = field(default_factory=dict, repr=False, compare=False)

    @property
    def distribution(self) -> str:
        """The distribution's name, or `"in-process"`."""
        return self.claim.distribution

    @property
    def version(self) -> str:
        """The distribution's version; empty for what was registered in process."""
        return self.claim.version

    @property
    def origin(self) -> str:
        """`"wheel"`, `"editable"`, the folder that holds the metadata, or `"in-process"`."""
        return self.claim.origin

    @property
    def objects(self) -> Mapping[str, Any]:
        """Parts that were registered in this process as objects."""
        parts = self.registration.parts if self.registration is not None else {}
        return {part: value for part, value in parts.items() if not isinstance(value, str)}

    def describe(self) -> str:
        """`"engine-plugin-llava 0.1.0"`."""
        return f"{self.distribution} {self.version}".strip()

    def target(self, part: str) -> str | None:
        """The `"module:attribute"` of a part; `None` where the plugin has no such part, or one without an import."""
        value = getattr(self.architecture, part) if part in PARTS else None
        return value if isinstance(value, str) else None

    def has(self, part: str) -> bool:
        """Whether the plugin names this part; imports nothing."""
        return part in self.objects or self.target(part) is not None

    def load(self, part: str) -> Any:
        """Import a part at its first use.

        Args:
            part: `"model"`, `"processor"`, `"info"`, `"dummy_inputs"`, `"transcription"`, `"tokenizer"`,
                `"tiny"`, `"demo"` or `"options"`.

        Raises:
            PluginContractError: The plugin names no such part.
            PluginImportError: Its target cannot be imported; distribution, version, target, cause and cure are named.
        """
        if part in self.objects:
            return self.objects[part]
        if part in self._failed:
            raise self._failed[part].with_traceback(None)
        if part not in self._loaded:
            try:
                self._loaded[part] = self._import(part)
            except PluginError as error:
                if self.has(part):
                    self._failed[part] = error
                    if self.on_failure is not None:
                        self.on_failure(part, error)
                raise
        return self._loaded[part]

    def capabilities(self, config_view: Any) -> Capabilities:
        """What the model can do, told from its config without torch.

        Raises:
            PluginContractError: The plugin's function raised, or returned something else than `Capabilities`.
        """
        from sdk.config_view import ConfigView
        from sdk.spec import Capabilities

        if self.parts is not None and isinstance(config_view, ConfigView):
            config_view = config_view.with_parts(self.parts)
        value: Any = self.objects.get("capabilities", self.architecture.capabilities)
        if isinstance(value, str):
            value = self.load("capabilities")
        if not isinstance(value, Capabilities):
            value = call(self.claim, f"capabilities() for {self.architecture.name}", value, config_view)
        if not isinstance(value, Capabilities):
            raise broken(self.claim, f"capabilities() must return sdk.Capabilities, not {value!r:.80}")
        if self.architecture.kind == "component":
            return value.model_copy(update={"tasks": ()})
        if self.has("transcription") and "transcription" not in value.tasks:
            return value.model_copy(update={"tasks": (*value.tasks, "transcription")})
        return value

    def record(self) -> dict[str, Any]:
        """What a worker process needs to import exactly this; JSON-able, see `verify_record`."""
        from .record import build_record

        return build_record(self)

    def _import(self, part: str) -> Any:
        target = self.target(part)
        if target is None:
            what = f"{self.describe()} names no {part} for {self.architecture.name}"
            raise PluginContractError(what, plugin=self.describe())
        module_name, _, path = target.partition(":")
        # Heavy libraries set variables of their own when they are imported; those are not the plugin's doing.
        with watch_import(environment=False, slow_after=float("inf")) as watch:
            value: Any = import_module(self.claim, module_name)
        warn_of(self.claim, target, watch)
        for name in path.split("."):
            if not hasattr(value, name):
                near = difflib.get_close_matches(name, dir(value), n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                error = AttributeError(f"{module_name} has no attribute {path!r}{hint}")
                if is_strict():
                    raise error
                raise import_error(self.claim, target, error)
            value = getattr(value, name)
        return value


def in_process_claim(architecture: str) -> Claim:
    """What stands for the entry point of an architecture that was registered by hand."""
    return Claim(architecture, "architecture", "", IN_PROCESS, "", "", IN_PROCESS, "")


def overlaid(record: Architecture | None, registration: Registration | None) -> Architecture:
    """A plugin's record with what was registered by hand on top; without a record, the registration alone.

    Raises:
        InvalidRequestError: What was registered makes no valid record.
    """
    from pydantic import ValidationError

    from sdk.spec import Architecture

    if registration is None:
        assert record is not None
        return record
    base = record.model_dump(exclude={"capabilities"}) | {"capabilities": record.capabilities} if record else {}
    targets = {part: _target_of(part, value) for part, value in registration.parts.items()}
    try:
        return Architecture(**{**base, "name": registration.architecture, **registration.fields, **targets})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InvalidRequestError(
            f"what was registered for {registration.architecture} is unusable: {problems}"
        ) from error


def _target_of(part: str, value: Any) -> Any:
    """How a registered value stands in the record: a target as it is, an object by its name."""
    from sdk.spec import Capabilities

    if isinstance(value, str | Capabilities):
        return value
    name = (
        str(getattr(value, "__qualname__", type(value).__qualname__)).replace("<locals>.", "").replace("<lambda>", "_")
    )
    return f"{getattr(value, '__module__', None) or '__main__'}:{name}"

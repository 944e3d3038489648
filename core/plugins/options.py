"""A plugin's own options: what its record declares, made of what a user gives, and told to people."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sdk.errors import InvalidConfigError

from .faults import broken, describe, is_strict

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

    from .resolved import ResolvedPlugin

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of", "pattern": "like",
           "min_length": "length >=", "max_length": "length <="}  # fmt: skip
"""Constraints of a field, as people read them."""


@dataclass(frozen=True)
class PluginOption:
    """One option that a plugin declares.

    Attributes:
        name: What it is given by.
        type: Its type with its bounds, as a person reads it.
        default: Its value where nobody gives one.
        required: Whether it must be given: it has no default then.
        description: What it is for.
    """

    name: str
    type: str
    default: Any
    required: bool
    description: str

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        from pydantic_core import to_jsonable_python

        return {**asdict(self), "default": to_jsonable_python(self.default, fallback=repr)}

    def __str__(self) -> str:
        return f"{self.name} ({self.type}, {'required' if self.required else f'default {self.default!r}'})"


def declared_options(plugin: ResolvedPlugin) -> tuple[PluginOption, ...]:
    """What a plugin's options are; none for a plugin without any.

    Raises:
        PluginContractError: What the record names is no pydantic model.
    """
    if not plugin.has("options"):
        return ()
    return tuple(_option(name, field) for name, field in _options_class(plugin).model_fields.items())


def make_options(plugin: ResolvedPlugin, given: Mapping[str, Any]) -> BaseModel | None:
    """A plugin's options, validated; None for a plugin without any.

    Args:
        plugin: Whose.
        given: Name → value, or a text that the option's type reads.

    Raises:
        InvalidConfigError: An option is unknown, missing or not of its type; it is named, with what is possible.
        PluginContractError: What the record names is no pydantic model, or fails by itself.
    """
    if not plugin.has("options"):
        if given:
            raise _refused(plugin, next(iter(given)), "is unknown")
        return None
    from pydantic import ValidationError

    cls = _options_class(plugin)
    for name in given:
        if name not in cls.model_fields:  # whatever the class does with names that it does not know
            near = difflib.get_close_matches(name, cls.model_fields, 1)
            raise _refused(plugin, name, f"is unknown; did you mean {near[0]!r}?" if near else "is unknown")
    try:
        return cls(**given)
    except ValidationError as error:
        raise _refused(plugin, *_fault(error, given)) from None
    except Exception as error:
        if is_strict():
            raise
        raise broken(plugin.claim, f"making its options raised {describe(error)}") from error


def _options_class(plugin: ResolvedPlugin) -> type[BaseModel]:
    from pydantic import BaseModel

    found: Any = plugin.load("options")
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise broken(plugin.claim, f"options of {plugin.architecture.name} is no pydantic model but {found!r:.80}")
    return found


def _option(name: str, field: FieldInfo) -> PluginOption:
    default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    bounds = [
        f"{word} {getattr(item, bound)}"
        for item in field.metadata
        for bound, word in _BOUNDS.items()
        if getattr(item, bound, None) is not None
    ]
    kind = ", ".join([inspect.formatannotation(field.annotation).replace("typing.", ""), *bounds])
    return PluginOption(name, kind, default, field.is_required(), field.description or "")


def _fault(error: ValidationError, given: Mapping[str, Any]) -> tuple[str, str]:
    """The first option that is at fault, and how."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    if not path:  # a validator of the whole
        return next(iter(given), ""), f"does not go with the others: {fault['msg']}"
    if path[0] not in given:
        return path[0], "must be given" if fault["type"] == "missing" else f"has no usable default: {fault['msg']}"
    within = f" at {'.'.join(path[1:])}" if path[1:] else ""
    return path[0], f"cannot be {given[path[0]]!r:.60}{within}: {fault['msg']}"


def _refused(plugin: ResolvedPlugin, name: str, why: str) -> InvalidConfigError:
    takes = ", ".join(map(str, declared_options(plugin))) or "no options"
    told = why if why.endswith(("?", ".")) else f"{why}."
    return InvalidConfigError(
        f"{plugin.describe()}: the plugin option {name!r} {told} {plugin.architecture.name} takes {takes}",
        param=f"plugin_options.{name}",
    )

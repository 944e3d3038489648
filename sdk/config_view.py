"""A config.json seen without torch or transformers: attribute access, and one spelling for what changed names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .errors import InvalidConfigError

if TYPE_CHECKING:
    from .spec import Capabilities, Role

    PartCapabilities = Callable[["ConfigView", Role, str | None], Capabilities]
    """(sub-config, role, model_type of one that names none) → what the model that it describes can do."""

_SPELLINGS = {
    "dtype": ("torch_dtype",),
    "torch_dtype": ("dtype",),
    "image_token_id": ("image_token_index",),
    "image_token_index": ("image_token_id",),
    "audio_token_id": ("audio_token_index",),
    "rope_parameters": ("rope_scaling",),
}

_LAYER_TYPES: Mapping[str, Literal["full", "sliding"]] = {"full_attention": "full", "sliding_attention": "sliding"}


class ConfigView:
    """Read-only attribute access to a parsed config.json. Sub-configs are views too; a missing key: AttributeError.

    Where transformers 4 and 5 spell a key differently, either spelling finds either.
    """

    def __init__(self, values: Mapping[str, Any], parts: PartCapabilities | None = None) -> None:
        self._values, self._parts = values, parts

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for spelling in (name, *_SPELLINGS.get(name, ())):
            if spelling in self._values:
                value = self._values[spelling]
                if isinstance(value, Mapping) and name.endswith("_config"):
                    return ConfigView(value, self._parts)
                return value
        raise AttributeError(f"config.json has no {name!r}")

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        return getattr(self, name, default)

    def attention_kinds(self, default: Sequence[str] = ()) -> tuple[Literal["full", "sliding"], ...]:
        """What `layer_types` names, as `Capabilities.attention` spells it; `default` serves a config without the key."""
        types = self.get("layer_types") or default
        return tuple(kind for name, kind in _LAYER_TYPES.items() if name in types)

    def with_parts(self, parts: PartCapabilities) -> ConfigView:
        """The same config, with the engine's answer to `capabilities_of`."""
        return ConfigView(self._values, parts)

    def capabilities_of(self, name: str, role: Role, *, model_type: str | None = None) -> Capabilities:
        """What a part of the model can do, as the plugin that runs the part tells it: the counterpart of `ctx.build`.

        Args:
            name: The key of the part's config, e.g. `"text_config"`; a config without it stands for the defaults.
            role: What the part is used as.
            model_type: Of a sub-config that names none, as HF's config class takes it.

        Raises:
            PluginError: No plugin runs the part, or the one that does cannot be used.
            InvalidConfigError: This view was made by hand, without plugins at hand.
        """
        part = self.get(name)
        if self._parts is None:
            raise InvalidConfigError(
                f"no plugins at hand to tell the capabilities of {name}: give the view some with with_parts"
            )
        return self._parts(part if isinstance(part, ConfigView) else ConfigView({}, self._parts), role, model_type)

    @property
    def text(self) -> ConfigView:
        """The language model's part: `text_config` where there is one, the config itself otherwise."""
        inner = self.get("text_config") or self.get("llm_config")
        return inner if isinstance(inner, ConfigView) else self

    @property
    def architecture(self) -> str | None:
        """The first of `architectures`."""
        names = self.get("architectures") or ()
        return str(names[0]) if names else None

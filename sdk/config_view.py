"""A config.json seen without torch or transformers: attribute access, and one spelling for what changed names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

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

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for spelling in (name, *_SPELLINGS.get(name, ())):
            if spelling in self._values:
                value = self._values[spelling]
                return ConfigView(value) if isinstance(value, Mapping) and name.endswith("_config") else value
        raise AttributeError(f"config.json has no {name!r}")

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        return getattr(self, name, default)

    def attention_kinds(self, default: Sequence[str] = ()) -> tuple[Literal["full", "sliding"], ...]:
        """What `layer_types` names, as `Capabilities.attention` spells it; `default` serves a config without the key."""
        types = self.get("layer_types") or default
        return tuple(kind for name, kind in _LAYER_TYPES.items() if name in types)

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

"""What a plugin says about an architecture: the `Architecture` record and its `Capabilities`. Torch-free."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ._api import API_VERSION, ENTRY_POINT_GROUP

__all__ = ["API_VERSION", "ENTRY_POINT_GROUP", "Architecture", "Capabilities", "CapabilitiesFunction", "Role", "Target"]

Role = Literal["causal-lm", "vision-encoder", "audio-encoder", "vision-language", "speech-to-text", "embedding"]
Target = str
"""`"module:attribute"`, imported when it is first used."""

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_TARGET = re.compile(rf"{_DOTTED}:{_DOTTED}")


def _spelt_right(given: Any, names: Collection[str]) -> Any:
    """Say which name was meant where one is misspelt; one that is near none is refused without."""
    for name in sorted(given.keys() - names) if isinstance(given, dict) else ():
        near = difflib.get_close_matches(name, names, 1)
        if near:
            raise ValueError(f"there is no {name!r}; did you mean {near[0]!r}?")
    return given


class Capabilities(BaseModel):
    """What a model can do, told from its config alone, so that start-up can refuse with a reason.

    Attributes:
        tasks: What it is offered for. `transcription` follows from `Architecture.transcription`.
        modalities: Media it takes besides text, e.g. `("image",)`.
        attention: Kinds of attention or state its layers use.
        prefix_caching: Whether equal prefixes may share pages.
        chunked_prefill: `any`, `item-atomic` (a media item is never split over two steps) or `no`.
        tensor_parallel: Whether each layer may be split over devices.
        pipeline_parallel: Whether the layers may be dealt out over devices.
        lora_targets: Linear layers that adapters may change.
        quantization: Names of quantization schemes it works with; `None`: any.
        prompt_embeds: Whether embeddings are accepted in the place of text.
        media_embeds: Whether embeddings are accepted in the place of media.
        lm_only: Whether the encoder may be left out when no medium is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = ("generate",)
    modalities: tuple[str, ...] = ()
    attention: tuple[Literal["full", "sliding", "cross", "encoder", "state-space", "convolution", "linear"], ...] = (
        "full",
    )
    prefix_caching: bool = True
    chunked_prefill: Literal["any", "item-atomic", "no"] = "any"
    tensor_parallel: bool = True
    pipeline_parallel: bool = False
    lora_targets: tuple[str, ...] = ()
    quantization: tuple[str, ...] | None = None
    prompt_embeds: bool = True
    media_embeds: bool = True
    lm_only: bool = True

    @model_validator(mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return _spelt_right(given, cls.model_fields)


class Architecture(BaseModel):
    """One architecture that a plugin runs. Everything heavy is a `"module:attribute"` string.

    Attributes:
        name: The HF architecture string, as in config.json's `architectures`; `"*"` for a fallback.
        model: The `sdk.Model` or `sdk.Encoder` class.
        processor: The class that says how the HF processor's tensors and placeholders fall into items; for models with media.
        info: The class that says what is known of the HF processor; for models with media.
        dummy_inputs: The class that makes the worst case; for models with media.
        transcription: The class that implements `SupportsTranscription`.
        tokenizer: `"module:function"`, `(source: str) -> HF tokenizer`, for checkpoints whose tokenizer transformers does not
            find by itself; called with the folder, or with what the user named.
        capabilities: A `Capabilities`, or `"module:function"` called with a `ConfigView`; torch-free.
        runtime_defaults: Engine options that this model wants unless the user says otherwise.
        kind: A `component` is built by other models and never offered as a task.
        role: What `ctx.build` may use it as.
        model_types: `model_type`s of sub-configs, which carry no architecture, that this record answers.
        tiny: `"module:function"`, `(seed: int, folder: Path) -> None`: writes a small random HF checkpoint, offline.
        demo: `"module:function"`, `() -> Path`: the folder of a shipped checkpoint that says something.
        requires: PEP 508 requirements checked before the model is loaded.
        options: `"module:Class"` of a pydantic model, torch-free: the plugin's own options. The validated instance is
            `ctx.options` of the model, of the processing info and of `SpeechModel`.
        license: The licence of the model's description.
        upstream: Where the model's description comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(min_length=1)
    model: Target
    processor: Target | None = None
    info: Target | None = None
    dummy_inputs: Target | None = None
    transcription: Target | None = None
    tokenizer: Target | None = None
    capabilities: Capabilities | Target = Capabilities()
    runtime_defaults: Mapping[str, Any] = Field(default_factory=dict)
    kind: Literal["model", "component"] = "model"
    role: Role = "causal-lm"
    model_types: tuple[str, ...] = ()
    tiny: Target | None = None
    demo: Target | None = None
    requires: tuple[str, ...] = ()
    options: Target | None = None
    license: str | None = None
    upstream: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return _spelt_right(given, cls.model_fields)

    @field_validator(
        "model", "processor", "info", "dummy_inputs", "transcription", "tokenizer", "tiny", "demo", "options"
    )
    @classmethod
    def _is_target(cls, value: str | None) -> str | None:
        if value is not None and not _TARGET.fullmatch(value):
            raise ValueError(f"must be 'module:attribute', not {value!r}")
        return value

    @field_validator("capabilities")
    @classmethod
    def _capabilities_target(cls, value: Capabilities | str) -> Capabilities | str:
        return value if isinstance(value, Capabilities) else (cls._is_target(value) or value)

    @field_validator("model_types", "requires")
    @classmethod
    def _said_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not item.strip() for item in value) or len(set(value)) != len(value):
            raise ValueError(f"each entry must be there once and not be empty: {value!r}")
        return value


CapabilitiesFunction = Callable[["Any"], Capabilities]

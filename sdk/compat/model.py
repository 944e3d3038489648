"""A ported model class becomes an `sdk.Model`: its constructor is given what it asks for, its hooks are checked like any."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from .._contract import FORMER_ARGUMENTS
from ..context import ModelContext
from ..interfaces import Model, SupportsMultiModal
from ..spec import Role
from .config import VllmConfig
from .mappers import Registrations, parts_of
from .refused import NotPortableError
from .weights import noted_loaders

_CONFIGS = ("vllm_config", "aphrodite_config")
_LEFT_TO_ENGINE = (
    "cache_config",
    "quant_config",
    "linear_method",
    "lora_config",
    "parallel_config",
    "multimodal_config",
)
"""Arguments of former constructors whose value is None here."""
_OWN = (nn.Module, Model, SupportsMultiModal, object)


class SupportsVision(SupportsMultiModal):
    """The oldest guide's name of `SupportsMultiModal`; a model of it writes `get_multimodal_embeddings` as well."""


def maybe_prefix(prefix: str, name: str) -> str:
    """`prefix.name`, or the name alone where there is no prefix."""
    return f"{prefix}.{name}" if prefix else name


def init_vllm_registered_model(
    vllm_config: VllmConfig,
    *,
    hf_config: Any = None,
    prefix: str = "",
    architectures: Iterable[str] | None = None,
    role: Role = "causal-lm",
) -> Any:
    """Build a part of a model that another plugin knows, such as the language model: `ctx.build`.

    Args:
        vllm_config: As the constructor was given it.
        hf_config: The part's config; by default, the whole model's.
        prefix: The part's name in this model.
        architectures: Put in the place of the config's own.
        role: What the part is used as.
    """
    config = vllm_config.model_config.hf_config if hf_config is None else hf_config
    if architectures is not None:
        from copy import copy

        config = copy(config)
        config.architectures = list(architectures)
    return vllm_config.ctx.build(config, role=role, prefix=prefix)


init_aphrodite_registered_model = init_vllm_registered_model


class _Ported(Model):
    """Stands between a ported class and `Model`, so that the ported constructor's `super().__init__()` takes nothing."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


@functools.cache
def adapt(cls: type) -> type[Model]:
    """Make a ported class an `sdk.Model`; one that is has nothing to be done.

    Raises:
        NotPortableError: It is no module, or its pictures are encoded within forward.
        TypeError: A method is a former hook, a misspelt one, or does not fit the hook that it overrides.
    """
    if not issubclass(cls, nn.Module):
        raise NotPortableError(f"{cls.__qualname__} is no torch.nn.Module")
    adapted = cls if issubclass(cls, Model) else _adapted(cls)
    registrations: Registrations | None = getattr(cls, "sdk_registrations", None)
    for part, value in (parts_of(cls, registrations) if registrations is not None else {}).items():
        setattr(adapted, f"compat_{part}", value)
    return adapted


def _adapted(cls: type) -> type[Model]:
    methods = {**_methods(cls), "__init__": _constructor(cls), "__doc__": cls.__doc__, "__module__": cls.__module__}
    _check_multimodal(cls, methods)
    if "load_weights" in methods:
        methods["load_weights"] = _loading(methods["load_weights"])
    if "compute_logits" in methods:
        methods["compute_logits"] = _without_metadata(methods["compute_logits"])
    if "forward" in methods:
        methods["forward"] = _with_reserved(methods["forward"])
    adapted: type[Model] = type(cls.__name__, (cls, _Ported), {**methods, "__qualname__": cls.__qualname__})
    return adapted


def _methods(cls: type) -> dict[str, Any]:
    """The class's methods and those of its bases that are the author's own; the SDK looks at each as if written here."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base in _OWN or base is SupportsVision:
            continue
        for name, value in vars(base).items():
            function = getattr(value, "__func__", value)
            if inspect.isfunction(function) and not name.startswith("__"):
                found[name] = value
    return found


def _check_multimodal(cls: type, methods: dict[str, Any]) -> None:
    if not issubclass(cls, SupportsMultiModal):
        return
    if not {"get_multimodal_embeddings", "embed_multimodal"} & set(methods):
        raise NotPortableError(
            f"{cls.__qualname__} encodes its media within forward; write get_multimodal_embeddings(self, **kwargs), which "
            "takes what the mapper or the HF processor gives and returns the projector's output, one (n, hidden) an item. "
            "The engine calls it once for each item, and gives forward the merged inputs_embeds"
        )
    forward = methods.get("forward")
    if forward is not None and not _takes(forward, "inputs_embeds"):
        raise NotPortableError(
            f"{cls.__qualname__}.forward takes no inputs_embeds, in which media come: forward(self, input_ids, positions, "
            "intermediate_tensors=None, inputs_embeds=None), and use them where they are not None"
        )


def _takes(function: Any, name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _constructor(cls: Any) -> Callable[..., None]:
    """`__init__(self, *, ctx, prefix)` around the ported one, which is given what its signature names."""
    parameters = inspect.signature(cls.__init__).parameters
    named = {n: p for n, p in parameters.items() if n != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    known = {*_CONFIGS, *_LEFT_TO_ENGINE, "config", "prefix", "ctx"}
    unknown = [name for name, p in named.items() if name not in known and p.default is p.empty]
    if unknown:
        raise NotPortableError(
            f"{cls.__qualname__}.__init__ asks for {', '.join(unknown)}; it can be given vllm_config and prefix, or config; "
            "everything else is read from config (an image token's id: config.image_token_id)"
        )

    def __init__(self: Any, *, ctx: ModelContext, prefix: str = "") -> None:
        values = {"config": ctx.hf_config, "ctx": ctx, "prefix": prefix, **dict.fromkeys(_LEFT_TO_ENGINE)}
        values |= dict.fromkeys(_CONFIGS, VllmConfig(ctx))
        cls.__init__(self, **{name: values[name] for name in named if name in values})
        self.ctx, self.prefix = ctx, prefix
        self.config = getattr(self, "config", ctx.hf_config)

    return __init__


def _loading(function: Any) -> Any:
    """`load_weights` with parameters that have a `weight_loader`; what it does not return itself is noted."""

    @functools.wraps(function)
    def load_weights(self: Any, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        with noted_loaders(self) as filled:
            said = function(self, weights)
        return set(filled if said is None else said)

    return load_weights


def _without_metadata(function: Any) -> Any:
    """`compute_logits(hidden_states)` of one that takes `sampling_metadata` as well, which is None."""
    if "sampling_metadata" not in inspect.signature(function).parameters:
        return function

    def compute_logits(self: Any, hidden_states: Tensor) -> Any:
        return function(self, hidden_states, sampling_metadata=None)

    return compute_logits


def _with_reserved(function: Any) -> Any:
    """`forward` of one that reserves parameters for media: they are None, since media come as embeddings."""
    known = inspect.signature(Model.forward).parameters
    parameters = list(inspect.signature(function).parameters.values())[1:]
    reserved = [
        p.name for p in parameters if p.name not in known and p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    if not reserved or set(FORMER_ARGUMENTS) & {p.name for p in parameters}:
        return function  # as it is, so that the SDK's own check names the former arguments

    def forward(
        self: Any,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Any:
        optional = {"intermediate_tensors": intermediate_tensors, "inputs_embeds": inputs_embeds}
        given = {name: value for name, value in optional.items() if _takes(function, name)}
        return function(self, input_ids, positions, **given, **dict.fromkeys(reserved))

    return forward


__all__ = [
    "SupportsMultiModal",
    "SupportsVision",
    "adapt",
    "init_aphrodite_registered_model",
    "init_vllm_registered_model",
    "maybe_prefix",
]

"""The check every SDK base class runs when it is subclassed: a hook is either overridden rightly, or it is an error.

An override that is silently never called is the commonest and dearest fault of plugins (a renamed hook, a typing error,
an argument too few), so nothing of the kind gets past the creation of the class.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

ALIASES = {"embed_multimodal": "get_multimodal_embeddings", "embed_input_ids": "get_input_embeddings"}
"""Today's spellings in vLLM, accepted as they are. A base class adds its own as `sdk_aliases`."""

FORMER_HOOKS = {
    "_get_prompt_replacements": "write `_get_prompt_updates`, or derive from sdk.compat.BaseMultiModalProcessor",
    "get_dummy_processor_inputs": "write `get_dummy_text` and `get_dummy_mm_data`, or derive from "
    "sdk.compat.BaseDummyInputsBuilder",
    "_get_hf_mm_text": "the token path needs no text; write `_call_hf_processor`",
    "_get_hf_mm_inputs": "write `_call_hf_processor`",
    "_postprocess_hf_mm_data": "override `_call_hf_processor` and change what super() returns",
    "_postprocess_prompt": "write `_apply_hf_processor_tokens_only`",
    "_hf_processor_applies_updates": "updates are always applied to tokens here; delete it",
    "_merge_mm_kwargs": "fields are merged by `_get_mm_fields_config`; delete it",
    "_get_mm_fields": "write `_get_mm_fields_config`",
    "get_multimodal_embedding": "write `get_multimodal_embeddings`",
    "get_vision_embeddings": "write `get_multimodal_embeddings`",
    "sample": "sampling is the engine's; end the model at `compute_logits`",
    "make_empty_intermediate_tensors": "pipeline stages are not part of this version of the SDK",
    "pad_input_ids": "write a processor with `_get_prompt_updates`",
    "get_image_feature": "write `get_multimodal_embeddings`",
}
"""Hooks of former guides and of other engines → what to write now."""

ADAPTED_HOOKS = frozenset({"_get_prompt_replacements", "get_dummy_processor_inputs"})
"""Former hooks that the base classes of `sdk.compat` call."""

FORMER_ARGUMENTS = {
    "kv_caches": "attention layers keep their own state; take it out of the signature",
    "attn_metadata": "attention layers know the step's layout; take it out of the signature",
}
"""Arguments that no hook has any more → what to write now."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def hook(function: F) -> F:
    """Mark a base class's method as one that the engine calls."""
    function.__sdk_hook__ = True  # type: ignore[attr-defined]
    return function


def helper(function: F) -> F:
    """Mark a method as the author's own, though its name is close to a hook's."""
    function.__sdk_helper__ = True  # type: ignore[attr-defined]
    return function


def _functions(cls: type) -> Iterator[tuple[str, Any, Any]]:
    """The class's own methods: name, descriptor, plain function."""
    for name, value in vars(cls).items():
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if inspect.isfunction(function):
            yield name, value, function


def hooks_of(cls: type) -> dict[str, Any]:
    """Every hook that the class's bases declare: name → descriptor as declared."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        for name, value, function in _functions(base):
            if getattr(function, "__sdk_hook__", False):
                found[name] = value
    return found


def _distance_within(a: str, b: str, limit: int) -> bool:
    """Whether the Levenshtein distance of two names is at most `limit`."""
    if abs(len(a) - len(b)) > limit:
        return False
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1] <= limit


def _callable_like(override: Any, declared: Any) -> str | None:
    """Why `override` cannot be called as `declared` is, or None."""
    kinds = tuple(
        next((k for k in (staticmethod, classmethod) if isinstance(x, k)), None) for x in (override, declared)
    )
    if kinds[0] is not kinds[1]:
        names = [k.__name__ if k else "plain method" for k in kinds]
        return f"it is a {names[0]}, the hook is a {names[1]}"
    mine = inspect.signature(getattr(override, "__func__", override))
    theirs = inspect.signature(getattr(declared, "__func__", declared))
    for former, advice in FORMER_ARGUMENTS.items():
        if former in mine.parameters:
            return f"{former} is an argument of an older guide: {advice}"
    declared_parameters = list(theirs.parameters.values())
    positional = [p for p in declared_parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p for p in declared_parameters if p.kind is p.KEYWORD_ONLY]
    needed = [p for p in positional if p.default is p.empty]
    call = {p.name: None for p in keywords if p.default is p.empty}
    if len(positional) == 1 and any(p.kind is p.VAR_KEYWORD for p in declared_parameters):
        # The hook takes whatever the plugin's own processor made, so an override may name what it needs.
        call |= {p.name: None for p in list(mine.parameters.values())[1:] if p.default is p.empty and p.kind in _NAMED}
    try:
        mine.bind(*[None] * len(needed), **call)
    except TypeError as e:
        return f"{e}; the hook is called as {theirs}"
    takes_any = any(p.kind is p.VAR_KEYWORD for p in mine.parameters.values())
    optional = [p.name for p in (*positional, *keywords) if p.default is not p.empty]
    missing = [n for n in optional if n not in mine.parameters and not takes_any]
    # A lenient hook's optional arguments may be left out: the engine looks before it passes them.
    if missing and not getattr(getattr(declared, "__func__", declared), "__sdk_lenient__", False):
        return f"it does not take {', '.join(missing)}; the hook is called as {theirs}"
    return None


def lenient(function: F) -> F:
    """Mark a hook whose optional arguments an override may leave out."""
    function.__sdk_lenient__ = True  # type: ignore[attr-defined]
    return function


def check_class(cls: type) -> None:
    """Check one new subclass; to be called from `__init_subclass__`.

    Raises:
        TypeError: A method bears a former hook's name, is within two letters of a hook's name, or overrides a hook with
            a signature that the engine's call does not fit.
    """
    hooks = hooks_of(cls)
    aliases: dict[str, str] = {**ALIASES, **getattr(cls, "sdk_aliases", {})}
    for name, value, function in list(_functions(cls)):
        where = f"{cls.__module__}.{cls.__qualname__}.{name}"
        if getattr(function, "__sdk_hook__", False):
            continue
        if name in aliases and aliases[name] in hooks:
            if vars(cls).get(aliases[name], value) is not value:  # the same: checked by another base before
                raise TypeError(f"{where} and {aliases[name]} are the same hook: keep one")
            setattr(cls, aliases[name], value)
            name = aliases[name]
        if name in hooks:
            why = _callable_like(value, hooks[name])
            if why is not None:
                raise TypeError(f"{where} does not fit the hook it overrides: {why}")
        elif getattr(function, "__sdk_helper__", False) or name.startswith("__"):
            continue
        elif name in FORMER_HOOKS:
            raise TypeError(
                f"{where} is a hook of another engine or an older guide and is never called: {FORMER_HOOKS[name]}"
            )
        else:
            near = next((h for h in hooks if _distance_within(name, h, 2)), None)
            if near is not None:
                raise TypeError(
                    f"{where} looks like the hook {near!r} misspelt; rename it, or mark it @sdk.helper if it is yours"
                )

"""What is taken out of lists: decorators, parameters and arguments that mean nothing here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import libcst as cst

from .symbols import REMOVED_ARGUMENTS, REMOVED_DECORATORS
from .trees import code_of

E = TypeVar("E", cst.Arg, cst.Param)


def kept_decorators(decorators: Sequence[cst.Decorator]) -> list[cst.Decorator]:
    """Those that mean something here."""

    def name(decorator: cst.Decorator) -> str:
        call = decorator.decorator
        return code_of(call.func if isinstance(call, cst.Call) else call)

    return [decorator for decorator in decorators if name(decorator) not in REMOVED_DECORATORS]


def without(elements: Sequence[E], is_removed: Callable[[E], bool]) -> Sequence[E]:
    """The others, where the last one ends as the last one did."""
    kept = [element for element in elements if not is_removed(element)]
    return _ended_as(kept, elements[-1]) if len(kept) != len(elements) else elements


def _ended_as(elements: Sequence[E], last: cst.Arg | cst.Param) -> Sequence[E]:
    ended = list(elements)
    if ended:
        ended[-1] = ended[-1].with_changes(comma=last.comma)
    return ended


def kept_parameters(params: cst.Parameters) -> cst.Parameters:
    """A function's parameters without those that no function has any more."""
    named = without(params.params, _is_removed_parameter)
    keywords = without(params.kwonly_params, _is_removed_parameter)
    star = params.star_arg
    if isinstance(star, cst.ParamStar) and not keywords:
        named, star = _ended_as(named, params.kwonly_params[-1]), cst.MaybeSentinel.DEFAULT
    return params.with_changes(params=named, kwonly_params=keywords, star_arg=star)


def _is_removed_parameter(parameter: cst.Param) -> bool:
    return parameter.name.value in REMOVED_ARGUMENTS


def is_removed_argument(arg: cst.Arg) -> bool:
    """Whether a call gives what no function takes any more."""
    named = arg.keyword is not None and arg.keyword.value in REMOVED_ARGUMENTS
    value = arg.value.value if isinstance(arg.value, cst.Subscript) else arg.value
    return named or (isinstance(value, cst.Name) and value.value in REMOVED_ARGUMENTS)

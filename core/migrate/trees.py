"""What several parts of the rewriting ask of libcst's trees."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any

import libcst as cst

from ..errors import InvalidConfigError

TOO_DEEP = "it is nested too deeply to be rewritten: write its longest expressions in parts"


def parsed(source: str) -> cst.Module:
    """A file's tree. Python's own parser reads it first: it has bounds for nesting, beyond which libcst's would crash.

    Raises:
        InvalidConfigError: It is no Python, or nested too deeply.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes and the like, which are the author's
            ast.parse(source)
        return cst.parse_module(source)
    except SyntaxError as e:
        where = "" if e.lineno is None else f"line {e.lineno}: "
        raise InvalidConfigError(f"it is no Python: {where}{e.msg}", param="FILE") from None
    except cst.ParserSyntaxError as e:
        raise InvalidConfigError(f"it is no Python: line {e.raw_line}: {e.message}", param="FILE") from None
    except (RecursionError, MemoryError):
        raise InvalidConfigError(TOO_DEEP, param="FILE") from None
    except ValueError as e:
        raise InvalidConfigError(f"it is no Python: {e}", param="FILE") from None


def code_of(node: cst.CSTNode) -> str:
    """The text of a part of a tree."""
    return cst.Module(body=[]).code_for_node(node)


def within(texts: Sequence[str], code: str) -> cst.BaseExpression:
    """An expression that may stand within formatted texts that begin so: before Python 3.12, it has to have other quotes."""
    inner, outer = ("'", '"') if any('"' in text for text in texts) else ('"', "'")
    return cst.parse_expression(code.replace(outer, inner) if texts else code)


def is_named(node: cst.CSTNode, name: str) -> bool:
    """Whether it is this name."""
    return isinstance(node, cst.Name) and node.value == name


def is_method(function: cst.FunctionDef) -> bool:
    """Whether its first parameter is `self` or `cls`."""
    parameters = function.params.params
    return bool(parameters) and parameters[0].name.value in ("self", "cls")


def names_bound(aliases: Sequence[cst.ImportAlias] | cst.ImportStar) -> set[str]:
    """The names that an import makes."""
    if isinstance(aliases, cst.ImportStar):
        return set()
    return {alias.evaluated_alias or alias.evaluated_name.partition(".")[0] for alias in aliases}


def in_its_place(branch: cst.If, body: cst.BaseSuite) -> Any:
    """What a branch does, where the branch was, below the comments that stood above it."""
    statements: list[Any] = list(body.body)
    if isinstance(body, cst.SimpleStatementSuite):
        statements = [cst.SimpleStatementLine(statements)]
    first = statements[0]
    statements[0] = first.with_changes(leading_lines=[*branch.leading_lines, *first.leading_lines])
    return cst.FlattenSentinel(statements)


def after_docstring_and_future(body: Sequence[Any]) -> int:
    """Where the first statement of a module may stand that is neither."""
    at = 0
    for number, statement in enumerate(body):
        first = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
        is_docstring = number == 0 and isinstance(first, cst.Expr) and isinstance(first.value, cst.SimpleString)
        is_future = (
            isinstance(first, cst.ImportFrom) and first.module is not None and code_of(first.module) == "__future__"
        )
        if is_docstring or is_future:
            at = number + 1
    return at

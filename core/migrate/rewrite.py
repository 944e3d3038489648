"""The rewriting: imports, hooks, what the engine does from outside. What cannot be decided here is noted with its line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider

from .symbols import (
    CONSTANTS,
    HANDLED,
    HOMES,
    PACKAGES,
    REMOVED_ARGUMENTS,
    REMOVED_BASES,
    REMOVED_DECORATORS,
    RENAMED,
    TYPES_ONLY,
    advice,
)

WIDTH = 120
"""Of a line that is written here."""


@dataclass(frozen=True)
class Note:
    """Something that a person has to look at.

    Attributes:
        line: Of the file that was given.
        text: What, and what to do.
    """

    line: int
    text: str


class Rewriter(cst.CSTTransformer):
    """Rewrites one module.

    Attributes:
        notes: What is left to do.
        registered: Architectures that the file registered → what it registered for them, as code.
        classes: Names of the classes that are modules.
    """

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Note] = []
        self.registered: dict[str, str] = {}
        self.classes: list[str] = []
        self._imports: dict[str, set[str]] = defaultdict(set)
        self._needs_any = self._needs_logging = False

    # ---- imports ----------------------------------------------------------------------------------------------------

    def leave_ImportFrom(self, original: cst.ImportFrom, updated: cst.ImportFrom) -> Any:
        module = _code(updated.module) if updated.module is not None else ""
        if not updated.relative and module.partition(".")[0] not in PACKAGES:
            return updated
        if isinstance(updated.names, cst.ImportStar):
            self._note(original, f"everything of {module or 'the package'} was imported: name what is needed")
            return cst.RemoveFromParent()
        where = "." * len(updated.relative) + module
        for alias in updated.names:
            name, bound = _code(alias.name), alias.evaluated_alias
            if name in HOMES:
                self._imports[HOMES[name]].add(name if bound is None else f"{name} as {bound}")
            elif name not in HANDLED:
                self._note(original, f"{name} (of {where}) has no counterpart: {advice(name)}")
        return cst.RemoveFromParent()

    def leave_Import(self, original: cst.Import, updated: cst.Import) -> Any:
        theirs = [alias for alias in updated.names if _code(alias.name).partition(".")[0] in PACKAGES]
        if not theirs:
            return updated
        self._note(
            original, f"{', '.join(_code(alias.name) for alias in theirs)} was imported whole: name what is needed"
        )
        ours = [alias for alias in updated.names if alias not in theirs]
        if not ours:
            return cst.RemoveFromParent()
        return updated.with_changes(names=[*ours[:-1], ours[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)])

    def leave_Module(self, original: cst.Module, updated: cst.Module) -> cst.Module:
        if self._needs_any:
            self._imports["typing"].add("Any")
        lines = ["import logging"] if self._needs_logging else []
        used = {name.value for name in m.findall(updated, m.Name()) if isinstance(name, cst.Name)}
        for home, names in sorted(self._imports.items()):
            wanted = sorted(name for name in names if name.rpartition(" ")[2] in used)
            lines += [_import(home, wanted)] if wanted else []
        made = [cst.parse_statement(line) for line in lines]
        if made:
            made[0] = made[0].with_changes(leading_lines=[cst.EmptyLine(indent=False)])
        body = list(updated.body)
        at = _after_docstring_and_future(body)
        return updated.with_changes(body=[*body[:at], *made, *body[at:]])

    # ---- classes and functions --------------------------------------------------------------------------------------

    def leave_ClassDef(self, original: cst.ClassDef, updated: cst.ClassDef) -> cst.ClassDef:
        if any(_code(base.value) in ("nn.Module", "torch.nn.Module") for base in updated.bases):
            self.classes.append(original.name.value)
        bases = [base for base in updated.bases if _code(base.value) not in REMOVED_BASES]
        if bases:
            bases[-1] = bases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return updated.with_changes(bases=bases, decorators=_kept_decorators(updated.decorators))

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        name = updated.name.value
        if name == "sample" and _is_method(updated):
            return cst.RemoveFromParent()
        if name in RENAMED and _is_method(updated):
            updated = updated.with_changes(name=cst.Name(RENAMED[name]))
        if name == "get_image_feature":
            self._note(
                original, "get_image_feature(items) is get_multimodal_embeddings(**media): the arguments are others"
            )
        parameters = [p for p in updated.params.params if p.name.value not in REMOVED_ARGUMENTS]
        if parameters:
            parameters[-1] = parameters[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        params = updated.params.with_changes(params=parameters)
        return updated.with_changes(params=params, decorators=_kept_decorators(updated.decorators))

    def leave_Annotation(self, original: cst.Annotation, updated: cst.Annotation) -> cst.Annotation:
        if m.findall(updated, m.OneOf(*(m.Name(name) for name in TYPES_ONLY | {"SamplerOutput"}))):
            self._needs_any = True
            return updated.with_changes(annotation=cst.Name("Any"))
        return updated

    # ---- statements -------------------------------------------------------------------------------------------------

    def leave_SimpleStatementLine(self, original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine) -> Any:
        if len(updated.body) != 1:
            return updated
        statement = updated.body[0]
        if isinstance(statement, cst.Expr) and m.matches(statement.value, _REGISTER):
            call = cst.ensure_type(statement.value, cst.Call)
            if len(call.args) >= 2 and isinstance(call.args[0].value, cst.SimpleString):
                self.registered[str(call.args[0].value.evaluated_value)] = _code(call.args[1].value)
                return cst.RemoveFromParent()
        if isinstance(statement, cst.Assign):
            if any(_code(target.target) in _REMOVED_ASSIGNMENTS for target in statement.targets):
                return cst.RemoveFromParent()
            if len(statement.targets) == 1 and _code(statement.targets[0].target) == _code(statement.value):
                return cst.RemoveFromParent()  # `name = name`, which a call left that is gone
            layers = _layers(statement)
            if layers is not None:
                return updated.with_changes(body=[layers])
        return updated

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> cst.IndentedBlock:
        return updated if updated.body else updated.with_changes(body=[cst.parse_statement("pass")])

    def leave_If(self, original: cst.If, updated: cst.If) -> Any:
        if _is(updated.test, "True"):
            return cst.FlattenSentinel(_statements(updated.body))
        if _is(updated.test, "False"):
            if updated.orelse is None:
                return cst.RemoveFromParent()
            if isinstance(updated.orelse, cst.Else):
                return cst.FlattenSentinel(_statements(updated.orelse.body))
        return updated

    # ---- expressions ------------------------------------------------------------------------------------------------

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        code = _code(updated)
        if code in CONSTANTS:
            return cst.parse_expression(CONSTANTS[code])
        if updated.attr.value in RENAMED:
            return updated.with_changes(attr=cst.Name(RENAMED[updated.attr.value]))
        return updated

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        code, function = _code(updated), _code(updated.func)
        if code in CONSTANTS:
            return cst.parse_expression(CONSTANTS[code])
        if function == "init_logger":
            self._needs_logging = True
            return updated.with_changes(func=cst.parse_expression("logging.getLogger"))
        if function == "is_pp_missing_parameter":
            return cst.Name("False")
        if function == "maybe_remap_kv_scale_name" and updated.args:
            return updated.args[0].value
        if function in ("islice", "itertools.islice") and code.endswith("self.start_layer, self.end_layer)"):
            return updated.args[0].value
        kept = [arg for arg in updated.args if not _is_removed_argument(arg)]
        if len(kept) != len(updated.args):
            if kept:
                kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            return updated.with_changes(args=kept)
        return updated

    def leave_Subscript(self, original: cst.Subscript, updated: cst.Subscript) -> cst.BaseExpression:
        if _code(updated).replace(" ", "").endswith("[self.start_layer:self.end_layer]"):
            return updated.value
        return updated

    def leave_UnaryOperation(self, original: cst.UnaryOperation, updated: cst.UnaryOperation) -> cst.BaseExpression:
        if isinstance(updated.operator, cst.Not) and (
            _is(updated.expression, "True") or _is(updated.expression, "False")
        ):
            return cst.Name("False" if _is(updated.expression, "True") else "True")
        return updated

    def leave_BooleanOperation(
        self, original: cst.BooleanOperation, updated: cst.BooleanOperation
    ) -> cst.BaseExpression:
        stops, passes = ("True", "False") if isinstance(updated.operator, cst.Or) else ("False", "True")
        for one, other in ((updated.left, updated.right), (updated.right, updated.left)):
            if _is(one, stops):
                return one
            if _is(one, passes):
                return other
        return updated

    def leave_IfExp(self, original: cst.IfExp, updated: cst.IfExp) -> cst.BaseExpression:
        if _is(updated.test, "True"):
            return updated.body
        return updated.orelse if _is(updated.test, "False") else updated

    def _note(self, node: cst.CSTNode, text: str) -> None:
        position: Any = self.get_metadata(PositionProvider, node)
        self.notes.append(Note(position.start.line, text))


def rewrite(source: str) -> tuple[str, Rewriter]:
    """The rewritten text of a module, and what is known besides.

    Raises:
        libcst.ParserSyntaxError: It is no Python.
    """
    rewriter = Rewriter()
    module = MetadataWrapper(cst.parse_module(source)).visit(rewriter)
    return module.code, rewriter


_REGISTER = m.Call(func=m.Attribute(value=m.Name("ModelRegistry"), attr=m.Name("register_model")))
_REMOVED_ASSIGNMENTS = ("self.sampler", "self.make_empty_intermediate_tensors")


def _layers(statement: cst.Assign) -> cst.Assign | None:
    """`self.layers = nn.ModuleList([…])` of what `make_layers` was asked for; None: this is no such assignment."""
    value, target = statement.value, statement.targets[0].target
    if not (isinstance(value, cst.Call) and _code(value.func) == "make_layers" and isinstance(target, cst.Tuple)):
        return None
    arguments = {arg.keyword.value: arg.value for arg in value.args if arg.keyword is not None}
    made = next((arg.value for arg in value.args if isinstance(arg.value, cst.Lambda)), None)
    if made is None or not value.args:
        return None
    own = f'{_code(arguments["prefix"])} + f".{{i}}"' if "prefix" in arguments else 'f"layers.{i}"'
    block: Any = made.body
    for parameter in made.params.params:
        block = block.visit(_Bound(parameter.name.value, cst.parse_expression(own)))
    code = f"nn.ModuleList([{_code(block)} for i in range({_code(value.args[0].value)})])"
    layers: Any = target.elements[-1].value
    return statement.with_changes(targets=[cst.AssignTarget(layers)], value=cst.parse_expression(code))


class _Bound(cst.CSTTransformer):
    """Puts a value in the place of a name, where it is used as one: not where it is a keyword or an attribute."""

    def __init__(self, name: str, value: cst.BaseExpression) -> None:
        super().__init__()
        self.name, self.value = name, value

    def visit_Arg(self, node: cst.Arg) -> bool:
        return False

    def leave_Arg(self, original: cst.Arg, updated: cst.Arg) -> cst.Arg:
        return updated.with_changes(value=original.value.visit(self))

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        return False

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.Attribute:
        return updated.with_changes(value=original.value.visit(self))

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> cst.BaseExpression:
        return self.value if updated.value == self.name else updated


def _import(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def _kept_decorators(decorators: Sequence[cst.Decorator]) -> list[cst.Decorator]:
    def name(decorator: cst.Decorator) -> str:
        call = decorator.decorator
        return _code(call.func if isinstance(call, cst.Call) else call)

    return [decorator for decorator in decorators if name(decorator) not in REMOVED_DECORATORS]


def _is_removed_argument(arg: cst.Arg) -> bool:
    named = arg.keyword is not None and arg.keyword.value in REMOVED_ARGUMENTS
    value = arg.value.value if isinstance(arg.value, cst.Subscript) else arg.value
    return named or (isinstance(value, cst.Name) and value.value in REMOVED_ARGUMENTS)


def _is_method(function: cst.FunctionDef) -> bool:
    parameters = function.params.params
    return bool(parameters) and parameters[0].name.value in ("self", "cls")


def _is(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name


def _statements(body: cst.BaseSuite) -> list[Any]:
    return list(body.body)


def _after_docstring_and_future(body: Sequence[Any]) -> int:
    at = 0
    for number, statement in enumerate(body):
        first = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
        is_docstring = number == 0 and isinstance(first, cst.Expr) and isinstance(first.value, cst.SimpleString)
        is_future = (
            isinstance(first, cst.ImportFrom) and first.module is not None and _code(first.module) == "__future__"
        )
        if is_docstring or is_future:
            at = number + 1
    return at


def _code(node: cst.CSTNode) -> str:
    return cst.Module(body=[]).code_for_node(node)

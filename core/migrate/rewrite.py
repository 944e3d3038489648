"""The rewriting: imports, hooks, what the engine does from outside. What cannot be decided here is noted with its line."""

from __future__ import annotations

import builtins
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider

from ..errors import InvalidConfigError
from .block_list import block_list
from .left import Taken, left_in
from .lists import is_removed_argument, kept_decorators, kept_parameters, without
from .notes import Note
from .symbols import (
    CONSTANTS,
    HANDLED,
    HOMES,
    PACKAGES,
    REMOVED_BASES,
    RENAMED,
    TYPES_ONLY,
    advice,
)
from .trees import (
    TOO_DEEP,
    after_docstring_and_future,
    code_of,
    in_its_place,
    is_method,
    is_named,
    names_bound,
    parsed,
    within,
)

WIDTH = 120
"""Of a line that is written here."""


class Rewriter(cst.CSTTransformer):
    """Rewrites one module.

    Attributes:
        notes: What is left to do.
        registered: Architectures that the file registered → what it registered for them, as code.
        models: Names of the classes that are models, by their ends.
        taken: What was taken out, for whoever looks at what is left.
    """

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Note] = []
        self.registered: dict[str, str] = {}
        self.models: list[str] = []
        self.taken = Taken()
        self._imports: dict[str, set[str]] = defaultdict(set)
        self._elsewhere = set(dir(builtins))
        """Names that stand for what is neither theirs nor the file's own: its calls stay as they are."""
        self._classes: list[str] = []
        """Around what is visited, from the outermost."""
        self._elifs: set[cst.CSTNode] = set()
        self._texts: list[str] = []
        """How the formatted texts around it begin."""
        self._needs_any = self._needs_logging = False

    # ---- imports ----------------------------------------------------------------------------------------------------

    def leave_ImportFrom(self, original: cst.ImportFrom, updated: cst.ImportFrom) -> Any:
        module = code_of(updated.module) if updated.module is not None else ""
        if not updated.relative and module.partition(".")[0] not in PACKAGES:
            self._elsewhere |= names_bound(updated.names)
            return updated
        if isinstance(updated.names, cst.ImportStar):
            self._note(original, f"everything of {module or 'the package'} was imported: name what is needed")
            return cst.RemoveFromParent()
        where = "." * len(updated.relative) + module
        for alias in updated.names:
            name, bound = code_of(alias.name), alias.evaluated_alias
            if name in HOMES:
                self._imports[HOMES[name]].add(name if bound is None else f"{name} as {bound}")
                self.taken.mapped[bound or name] = name
            elif name in HANDLED:
                self.taken.dropped[bound or name] = name
            else:
                self._note(original, f"{name} (of {where}) has no counterpart: {advice(name)}")
        return cst.RemoveFromParent()

    def leave_Import(self, original: cst.Import, updated: cst.Import) -> Any:
        theirs = [alias for alias in updated.names if code_of(alias.name).partition(".")[0] in PACKAGES]
        if not theirs:
            self._elsewhere |= names_bound(updated.names)
            return updated
        self._note(
            original, f"{', '.join(code_of(alias.name) for alias in theirs)} was imported whole: name what is needed"
        )
        ours = [alias for alias in updated.names if alias not in theirs]
        self._elsewhere |= names_bound(ours)
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
        at = after_docstring_and_future(body)
        return updated.with_changes(body=[*body[:at], *made, *body[at:]])

    # ---- classes and functions --------------------------------------------------------------------------------------

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._classes.append(node.name.value)

    def leave_ClassDef(self, original: cst.ClassDef, updated: cst.ClassDef) -> cst.ClassDef:
        name = self._classes.pop()
        if not self._classes and name.endswith(MODELS):
            self.models.append(name)
        bases = without(updated.bases, lambda base: code_of(base.value) in REMOVED_BASES)
        return updated.with_changes(bases=bases, decorators=kept_decorators(updated.decorators))

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        name, params = updated.name.value, updated.params
        if name == "sample" and is_method(updated) and self._is_models(params):
            self._note(original, f"sample was taken out: {advice('SamplerOutput')}")
            return cst.RemoveFromParent()
        if name in RENAMED and is_method(updated):
            updated = updated.with_changes(name=cst.Name(RENAMED[name]))
        params = kept_parameters(params)
        return updated.with_changes(params=params, decorators=kept_decorators(updated.decorators))

    def _is_models(self, params: cst.Parameters) -> bool:
        """Whether a method `sample` with these parameters is that of a model, and no other's."""
        names = {param.name.value for param in (*params.params, *params.kwonly_params)}
        return "sampling_metadata" in names or any(name.endswith(MODELS) for name in self._classes[-1:])

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
                self.registered[str(call.args[0].value.evaluated_value)] = code_of(call.args[1].value)
                return cst.RemoveFromParent()
        if isinstance(statement, cst.Assign):
            target = code_of(statement.targets[0].target) if len(statement.targets) == 1 else None
            if target == "self.make_empty_intermediate_tensors":
                self.taken.attributes[target] = advice("make_empty_intermediate_tensors_factory")
                return cst.RemoveFromParent()
            if target == "self.sampler" and m.matches(statement.value, _MAKES_SAMPLER):
                self.taken.attributes[target] = advice("Sampler")
                return cst.RemoveFromParent()
            if target == code_of(statement.value):
                return cst.RemoveFromParent()  # `name = name`, which a call left that is gone
            layers = block_list(statement)
            if layers is not None:
                self._put(layers, original)
                bounds = cst.ensure_type(statement.targets[0].target, cst.Tuple).elements[:-1]
                said = "every layer is here: count them all"
                self.taken.attributes |= {code_of(bound.value): said for bound in bounds}
                return updated.with_changes(body=[layers])
        return updated

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> cst.IndentedBlock:
        return updated if updated.body else updated.with_changes(body=[cst.parse_statement("pass")])

    def visit_If(self, node: cst.If) -> None:
        if isinstance(node.orelse, cst.If):
            self._elifs.add(node.orelse)

    def leave_If(self, original: cst.If, updated: cst.If) -> Any:
        is_elif, otherwise = original in self._elifs, updated.orelse
        if is_named(updated.test, "True"):
            if is_elif:
                return cst.Else(updated.body, leading_lines=updated.leading_lines)
            return in_its_place(updated, updated.body)
        if is_named(updated.test, "False"):
            if otherwise is None:
                return cst.RemoveFromParent()
            if isinstance(otherwise, cst.Else) and not is_elif:
                return in_its_place(updated, otherwise.body)
            return otherwise.with_changes(leading_lines=[*updated.leading_lines, *otherwise.leading_lines])
        return updated

    # ---- expressions ------------------------------------------------------------------------------------------------

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> cst.Name:
        self.taken.lines[updated] = self._line(original)
        return updated

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        code = code_of(updated)
        if code in CONSTANTS:
            return within(self._texts, CONSTANTS[code])
        if updated.attr.value in RENAMED:
            return updated.with_changes(attr=cst.Name(RENAMED[updated.attr.value]))
        return updated

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        code, function = code_of(updated), code_of(updated.func)
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
        if function.partition(".")[0] in self._elsewhere:
            return updated
        return updated.with_changes(args=without(updated.args, is_removed_argument))

    def visit_FormattedString(self, node: cst.FormattedString) -> None:
        self._texts.append(node.start)

    def leave_FormattedString(self, original: cst.FormattedString, updated: cst.FormattedString) -> cst.FormattedString:
        self._texts.pop()
        return updated

    def leave_Subscript(self, original: cst.Subscript, updated: cst.Subscript) -> cst.BaseExpression:
        if code_of(updated).replace(" ", "").endswith("[self.start_layer:self.end_layer]"):
            return updated.value
        return updated

    def leave_UnaryOperation(self, original: cst.UnaryOperation, updated: cst.UnaryOperation) -> cst.BaseExpression:
        if isinstance(updated.operator, cst.Not) and (
            is_named(updated.expression, "True") or is_named(updated.expression, "False")
        ):
            return cst.Name("False" if is_named(updated.expression, "True") else "True")
        return updated

    def leave_BooleanOperation(
        self, original: cst.BooleanOperation, updated: cst.BooleanOperation
    ) -> cst.BaseExpression:
        stops, passes = ("True", "False") if isinstance(updated.operator, cst.Or) else ("False", "True")
        for one, other in ((updated.left, updated.right), (updated.right, updated.left)):
            if is_named(one, stops):
                return one
            if is_named(one, passes):
                return other
        return updated

    def leave_IfExp(self, original: cst.IfExp, updated: cst.IfExp) -> cst.BaseExpression:
        if is_named(updated.test, "True"):
            return updated.body
        return updated.orelse if is_named(updated.test, "False") else updated

    def _put(self, node: cst.CSTNode, original: cst.CSTNode) -> None:
        """Say of what was put in the place of something that its names are of that line."""
        self.taken.lines |= dict.fromkeys(m.findall(node, m.Name()), self._line(original))

    def _line(self, node: cst.CSTNode) -> int:
        position: Any = self.get_metadata(PositionProvider, node)
        return int(position.start.line)

    def _note(self, node: cst.CSTNode, text: str) -> None:
        self.notes.append(Note(self._line(node), text))


def rewrite(source: str) -> tuple[str, Rewriter]:
    """The rewritten text of a module, and what is known besides.

    Raises:
        InvalidConfigError: It is no Python, or nested too deeply.
    """
    tree, rewriter = parsed(source), Rewriter()
    try:
        module = MetadataWrapper(tree).visit(rewriter)
        rewriter.notes += left_in(module, rewriter.taken)
        return module.code, rewriter
    except RecursionError:
        raise InvalidConfigError(TOO_DEEP, param="FILE") from None


MODELS = ("ForCausalLM", "ForConditionalGeneration")
"""What names of models end with."""

_REGISTER = m.Call(func=m.Attribute(value=m.Name("ModelRegistry"), attr=m.Name("register_model")))
_MAKES_SAMPLER = m.Call(func=m.Name("get_sampler") | m.Name("Sampler"))


def _import(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"

"""`make_layers(…)` becomes the list of blocks that it would make."""

from __future__ import annotations

from typing import Any

import libcst as cst

from .trees import code_of, within


def block_list(statement: cst.Assign) -> cst.Assign | None:
    """`self.layers = nn.ModuleList([…])` of what `make_layers` was asked for; None: this is no such assignment."""
    value, target = statement.value, statement.targets[0].target
    if not (isinstance(value, cst.Call) and code_of(value.func) == "make_layers" and isinstance(target, cst.Tuple)):
        return None
    arguments = {arg.keyword.value: arg.value for arg in value.args if arg.keyword is not None}
    made = next((arg.value for arg in value.args if isinstance(arg.value, cst.Lambda)), None)
    if made is None or not value.args:
        return None
    own = f'{code_of(arguments["prefix"])} + f".{{i}}"' if "prefix" in arguments else 'f"layers.{i}"'
    block: Any = made.body
    for parameter in made.params.params:
        block = block.visit(_Bound(parameter.name.value, own))
    code = f"nn.ModuleList([{code_of(block)} for i in range({code_of(value.args[0].value)})])"
    layers: Any = target.elements[-1].value
    return statement.with_changes(targets=[cst.AssignTarget(layers)], value=cst.parse_expression(code))


class _Bound(cst.CSTTransformer):
    """Puts a value in the place of a name, where it is used as one: not where it is a keyword or an attribute."""

    def __init__(self, name: str, code: str) -> None:
        super().__init__()
        self.name, self.code = name, code
        self.texts: list[str] = []

    def visit_FormattedString(self, node: cst.FormattedString) -> None:
        self.texts.append(node.start)

    def leave_FormattedString(self, original: cst.FormattedString, updated: cst.FormattedString) -> cst.FormattedString:
        self.texts.pop()
        return updated

    def visit_Arg(self, node: cst.Arg) -> bool:
        return False

    def leave_Arg(self, original: cst.Arg, updated: cst.Arg) -> cst.Arg:
        return updated.with_changes(value=original.value.visit(self))

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        return False

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.Attribute:
        return updated.with_changes(value=original.value.visit(self))

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> cst.BaseExpression:
        return within(self.texts, self.code) if updated.value == self.name else updated

"""What a rewriting leaves in a file that nothing here gives, calls or has: found in the result, so that nothing goes unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

import libcst as cst

from .notes import Note
from .symbols import CONFIG_MEMBERS, FORMER_HOOKS, HOMES, REMOVED_ARGUMENTS, advice
from .trees import code_of, is_method


@dataclass
class Taken:
    """What was taken out of a file, and what its names stand for.

    Attributes:
        lines: Of each name in the result, the line of the file that was given; names that were put in have none.
        dropped: Names whose import is gone → as they were imported.
        mapped: Names that are imported from a module of ours → as it has them.
        attributes: Such as `self.sampler`, whose assignment is gone → what to do without.
    """

    lines: dict[cst.CSTNode, int] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)


def left_in(module: cst.Module, taken: Taken) -> list[Note]:
    """What a person has to look at in a rewritten module."""
    finder = _Finder(taken)
    module.visit(finder)
    return list(finder.notes)


class _Finder(cst.CSTVisitor):
    def __init__(self, taken: Taken) -> None:
        super().__init__()
        self.taken = taken
        self.notes: dict[Note, None] = {}
        """In order, each once."""

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        name = node.name.value
        if name in FORMER_HOOKS and is_method(node):
            self._note(node.name, f"{name} is never called here: {FORMER_HOOKS[name]}")

    def visit_Name(self, node: cst.Name) -> None:
        name = node.value
        if name in REMOVED_ARGUMENTS:
            self._note(node, f"{name} is still used, and nothing gives it: {REMOVED_ARGUMENTS[name]}")
        elif name in self.taken.dropped:
            self._note(node, f"{name} is still used: {advice(self.taken.dropped[name])}")

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        name, code = node.attr.value, code_of(node)
        if name in REMOVED_ARGUMENTS:
            self.visit_Name(node.attr)
        elif code in self.taken.attributes:
            self._note(node.attr, f"{code} is still used, and no longer set: {self.taken.attributes[code]}")
        else:
            self._look_at_member(node)
        node.value.visit(self)
        return False

    def visit_Arg(self, node: cst.Arg) -> bool:
        node.value.visit(self)
        return False

    def _look_at_member(self, node: cst.Attribute) -> None:
        """Say that a thing of ours has no such member."""
        name = node.attr.value
        if isinstance(node.value, cst.Name) and node.value.value in self.taken.mapped:
            thing = self.taken.mapped[node.value.value]
            if name not in _members(HOMES[thing], thing):
                self._note(
                    node.attr, f"{thing} of {HOMES[thing]} has no {name}: leave it out, or write it in the plugin"
                )
        else:
            config = node.value.attr if isinstance(node.value, cst.Attribute) else node.value
            known: Mapping[str, frozenset[str]] = CONFIG_MEMBERS
            if isinstance(config, cst.Name) and name not in known.get(config.value, {name}):
                self._note(
                    node.attr,
                    f"{config.value}.{name} has nothing to stand for here: read it from hf_config, or leave it out",
                )

    def _note(self, node: cst.Name, text: str) -> None:
        line = self.taken.lines.get(node)
        if line is not None:
            self.notes[Note(line, text)] = None


def _members(home: str, name: str) -> set[str]:
    thing = getattr(import_module(home), name)
    return {*dir(thing), *getattr(thing, "__dataclass_fields__", ())}

"""What a plugin's source says before any of it runs: small searches over its syntax trees."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from .._contract import ADAPTED_HOOKS, FORMER_ARGUMENTS, FORMER_HOOKS

Found = Iterator[tuple[ast.AST, str]]
"""Where, and what is wrong there."""


class Finding(NamedTuple):
    """One thing that a rule found."""

    file: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line} {self.what}"


class Source:
    """One file, parsed; names that it imports are known by what they stand for."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tree = ast.parse(file.read_text(encoding="utf-8"), str(file))

    @cached_property
    def imports(self) -> list[tuple[ast.AST, str]]:
        """Every absolute import: node and dotted name, also those by `import_module` and `__import__`."""
        found: list[tuple[ast.AST, str]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found += [(node, f"{node.module}.{alias.name}") for alias in node.names]
            elif isinstance(node, ast.Call) and self.dotted(node.func) in ("importlib.import_module", "__import__"):
                found += [(node, str(a.value)) for a in node.args[:1] if isinstance(a, ast.Constant)]
        return found

    @cached_property
    def names(self) -> dict[str, str]:
        """Local name → dotted name of what was imported under it."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    root = alias.name.partition(".")[0]
                    found[alias.asname or root] = alias.name if alias.asname else root
            elif isinstance(node, ast.ImportFrom):
                found |= {a.asname or a.name: f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names}
        return found

    def dotted(self, node: ast.AST) -> str:
        """`torch.load` for `torch.load`, for `t.load` after `import torch as t`, for `load` after `from torch import load`."""
        if isinstance(node, ast.Attribute):
            inner = self.dotted(node.value)
            return f"{inner}.{node.attr}" if inner else ""
        return self.names.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Every call and the dotted name of what is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, self.dotted(node.func)


Rule = Callable[[Source], Found]


def package_files(module: str) -> list[Path]:
    """The files of the package that a plugin module belongs to, without importing it."""
    name = module
    while "." in name and importlib.util.find_spec(name.rpartition(".")[0]) is not None:
        parent = importlib.util.find_spec(name.rpartition(".")[0])
        if parent is None or parent.origin is None:  # a namespace package holds others' code as well
            break
        name = name.rpartition(".")[0]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(spec.origin)]


def search(files: list[Path], rule: Rule) -> list[Finding]:
    """What a rule finds in these files."""
    return [Finding(file, getattr(node, "lineno", 0), what) for file in files for node, what in rule(Source(file))]


def imports_of_core(source: Source) -> Found:
    """The engine, which a plugin must not know."""
    for node, name in source.imports:
        if name.partition(".")[0] == "core":
            yield node, f"imports {name}"


def former_hooks(source: Source) -> Found:
    """Methods that bear a former hook's name, in classes that build on the SDK's or on another plugin's."""
    classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    ours: set[str] = set()
    adapted: set[str] = set()
    for node in classes:  # a base stands above its subclasses in the file
        bases = [source.dotted(b.value if isinstance(b, ast.Subscript) else b) for b in node.bases]
        if not any(b.partition(".")[0] in ("sdk", "") or b in ours or _is_plugin(b) for b in bases if b):
            continue
        ours.add(node.name)
        if any(b in adapted or b.startswith("sdk.compat.") for b in bases if b):
            adapted.add(node.name)
        for item in node.body:
            if not isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            called = item.name in ADAPTED_HOOKS and node.name in adapted
            if item.name in FORMER_HOOKS and not called and not _is_helper(source, item):
                yield item, f"{node.name}.{item.name} is never called: {FORMER_HOOKS[item.name]}"
            for argument in (*item.args.args, *item.args.kwonlyargs):
                if argument.arg in FORMER_ARGUMENTS:
                    yield item, f"{node.name}.{item.name} takes {argument.arg}: {FORMER_ARGUMENTS[argument.arg]}"


def _is_plugin(name: str) -> bool:
    return name.partition(".")[0].startswith("engine_plugin")


def _is_helper(source: Source, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(source.dotted(d).rpartition(".")[2] == "helper" for d in function.decorator_list)


def remote_code(source: Source) -> Found:
    """`trust_remote_code` with anything but False."""
    for node in ast.walk(source.tree):
        pairs: list[tuple[object, ast.AST]] = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values)]
        for name, value in pairs:
            if name == "trust_remote_code" and not (isinstance(value, ast.Constant) and value.value is False):
                yield value, f"passes trust_remote_code={ast.unparse(value)}"


_PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def pickles(source: Source) -> Found:
    """What runs code from a file: `torch.load`, pickle and what builds on it."""
    for node, name in source.imports:
        if name.partition(".")[0] in _PICKLES:
            yield node, f"imports {name.partition('.')[0]}"
    for call, name in source.calls():
        allowing = any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False for k in call.keywords)
        if name in ("torch.load", "torch.jit.load", "torch.hub.load") or allowing:
            yield call, f"calls {name}{'(allow_pickle=…)' if allowing else ''}"


def evaluations(source: Source) -> Found:
    """`eval`, `exec` and `compile` of text."""
    for call, name in source.calls():
        if name in ("eval", "exec", "compile", "builtins.eval", "builtins.exec"):
            yield call, f"calls {name}"


_NETWORK = ("requests", "urllib.request", "urllib3", "httpx", "aiohttp", "socket", "ssl", "http.client", "ftplib",
            "websockets", "boto3", "smtplib", "xmlrpc", "paramiko", "huggingface_hub")  # fmt: skip


def networks(source: Source) -> Found:
    """Libraries that reach out of the machine."""
    for node, name in source.imports:
        hit = next((n for n in _NETWORK if name == n or name.startswith(n + ".")), None)
        if hit is not None:
            yield node, f"imports {hit}"


def cuda_at_import(source: Source) -> Found:
    """Calls at module or class level that touch a CUDA device."""
    for node in outside_functions(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name = source.dotted(node.func)
        last = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        device = any(isinstance(v, ast.Constant) and str(v.value).startswith("cuda") for v in values)
        if name.startswith("torch.cuda.") or last == "cuda" or device:
            yield node, f"calls {ast.unparse(node)[:80]} at import"


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from outside_functions(child)

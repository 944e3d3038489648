"""What is compared. Each system is a module here, which imports what it measures only when it is made: it may be installed in
another environment than this engine's."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

SYSTEMS = {
    "ours": "ours:Ours",
    "ours-int8": "ours:OursInt8",
    "transformers": "hf:Transformers",
    "openvino": "openvino_genai:OpenVino",
    "openvino-int8": "openvino_genai:OpenVinoInt8",
    "vllm": "vllm_cpu:Vllm",
    "llamacpp": "llama_cpp:LlamaCpp",
    "llamacpp-int8": "llama_cpp:LlamaCppInt8",
}
"""Name → where its class is: `(folder) -> System`. Where the module has `environment(python)`, its process runs in that."""


def _found(name: str) -> tuple[Any, str]:
    module, attribute = SYSTEMS[name].split(":")
    return import_module(f".{module}", __package__), attribute


def system(name: str) -> Callable[[Path], Any]:
    """The class of a system; see `benchmarks.cases.System`."""
    module, attribute = _found(name)
    made: Callable[[Path], Any] = getattr(module, attribute)
    return made


def environment(name: str, python: Path) -> dict[str, str]:
    """Variables that a system's process wants, when it is run by this interpreter."""
    module, _ = _found(name)
    asked: dict[str, str] = module.environment(python) if hasattr(module, "environment") else {}
    return asked

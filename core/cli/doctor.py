"""`engine doctor`: everything that a bug report should say about the machine and the installation."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import importlib_metadata
import typer

from .. import __version__
from .._shadow import check_import_origin
from ..plugins import Catalog
from .output import as_json, pairs

PACKAGES = (
    "torch",
    "transformers",
    "triton",
    "numpy",
    "safetensors",
    "tokenizers",
    "huggingface-hub",
    "pillow",
    "pydantic",
    "pluggy",
    "typer",
)
_ISA = (
    *("fma", "f16c", "avx", "avx2", "avx_vnni"),
    *("avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
_GIB = 2**30


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, plugins and what looks wrong. Values of environment variables are not shown."""
    report = examine()
    if json:
        print(as_json(report))
        return
    for title, content in report.items():
        print(f"\n{title}" if title != "engine" else title)
        print(_as_text(content) or "  none")


def examine() -> dict[str, Any]:
    """The whole report, JSON-able."""
    catalog = Catalog.installed()
    return {
        "engine": {"version": __version__, "imported from": str(Path(__file__).parents[1])},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "machine": {"os": platform.platform(), **_cpu(), **_memory()},
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": _torch(),
        "plugins": [status.as_json() for status in catalog.plugins()],
        "environment": sorted(name for name in os.environ if name.startswith("ENGINE_")),
        "warnings": [*check_import_origin(current_folder=True), *catalog.notes],
    }


def _as_text(content: Any) -> str:
    if isinstance(content, Mapping):
        return pairs([(name, _value(value)) for name, value in content.items()], indent="  ")
    if content and isinstance(content[0], Mapping):
        rows = [(f"{p['distribution']} {p['version']}", f"{p['state']}  {_value(p['architectures'])}") for p in content]
        return pairs(rows, indent="  ")
    return "\n".join(f"  {item}" for item in content)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not installed" if value is None else str(value)


def _version(name: str) -> str | None:
    try:
        return importlib_metadata.version(name)
    except importlib_metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    """The processor's name, how many of its cores this process may use, and instructions that kernels care for."""
    lines = _read("/proc/cpuinfo").splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    known = set((facts.get("flags") or facts.get("Features") or "").split())
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": len(affinity(0)) if affinity is not None else os.cpu_count(),
        "instructions": [name for name in _ISA if name in known],
    }


def _memory() -> dict[str, str]:
    """Memory of the machine, and the limit of the container where there is one."""
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    found = {
        "memory": sizes.get("MemTotal"),
        "memory available": sizes.get("MemAvailable"),
        "memory limit": _as_int(_read("/sys/fs/cgroup/memory.max")),
    }
    return {name: f"{size / _GIB:.1f} GiB" for name, size in found.items() if size is not None}


def _torch() -> dict[str, Any]:
    """What torch sees; a torch that cannot be imported is a finding, not a failure."""
    try:
        import torch
    except Exception as error:
        return {"error": f"torch cannot be imported: {type(error).__name__}: {error}"}
    devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return {
        "threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "cuda build": torch.version.cuda or "no",
        "devices": ["cpu", *devices],
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _as_int(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None

"""Where options of `engine serve` come from besides its flags: a file, and the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from ..errors import InvalidConfigError

ALIASES = {"model": "models", "served_model_names": "served_model_name", "api_keys": "api_key", "plugins": "plugin",
           "plugin_options": "plugin_option", "limit_mm_per_prompt": "limit", "allowed_origins": "allowed_origin",
           "allowed_media_hosts": "allowed_media_host", "allowed_media_networks": "allowed_media_network",
           "enable_prefix_caching": "prefix_caching"}  # fmt: skip
"""Names in a file that a flag has under another one."""
MAPPINGS = frozenset({"limit", "plugin", "plugin_option"})
"""Options whose values are NAME=VALUE."""
REPEATED = MAPPINGS | {"models", "served_model_name", "api_key", "allowed_origin", "allowed_media_host",
                       "allowed_media_network"}  # fmt: skip


def option(*names: str, help: str, default: object = None, **more: Any) -> Any:
    """An option that the environment may give as well: `--max-model-len` as ENGINE_MAX_MODEL_LEN."""
    name = names[0].partition("/")[0].removeprefix("--").replace("-", "_")
    variable = _variable(name)
    shown = False if default is None else str(default)
    if name in REPEATED:  # see `_from_environment`
        return typer.Option(*names, help=f"{help} [env var: {variable}, one a line]", show_default=shown, **more)
    return typer.Option(*names, help=help, envvar=variable, show_default=shown, **more)


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Lay a file's values, and over them those of the environment, under those of flags.

    Raises:
        InvalidConfigError: The file cannot be read, or has a name that is none, or a value in no form that its option takes.
    """
    known = {p.name for p in context.command.params if p.name} - {"config"}
    try:
        defaults = _from_file(path, known) if path is not None else {}
    except InvalidConfigError as e:
        raise InvalidConfigError(f"--config {path}: {e.message}", param="--config") from e
    context.default_map = {**defaults, **_from_environment()}
    context.obj = {name: value for name, value in defaults.items() if name not in known}
    return path


def _variable(name: str) -> str:
    return f"ENGINE_{name.upper().removeprefix('ENGINE_')}"


def _from_environment() -> dict[str, list[str]]:
    """Of options that may be repeated: a value a line. The parser would cut values at their blanks, and make of a key of three
    words three keys of one."""
    given = {name: os.environ.get(_variable(name)) for name in REPEATED - {"models"}}
    return {name: text.removesuffix("\n").split("\n") for name, text in given.items() if text}


def _from_file(path: Path, known: set[str]) -> dict[str, Any]:
    from ..config import EngineConfig
    from ..server.settings import ServerSettings, unknown_option

    others = {*EngineConfig.model_fields, *ServerSettings.model_fields} - {"model"}
    found: dict[str, Any] = {}
    for key, value in _load(path).items():
        name = ALIASES.get(key.replace("-", "_"), key.replace("-", "_"))
        if name not in known and name not in others:
            raise unknown_option(key, dict.fromkeys(sorted(known | others)))
        found[name] = _listed(key, name, value) if name in REPEATED else value
    return found


def _load(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise InvalidConfigError(f"cannot be read: {e!s:.300}") from e
    if found is None:  # nothing but comments
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InvalidConfigError("must map the names of options to values")
    return found


def _listed(key: str, name: str, value: Any) -> list[Any]:
    """A file's value as a repeated flag takes it: a mapping becomes NAME=VALUE, one value becomes a list of one."""
    if isinstance(value, Mapping):
        return [f"{k}={v if isinstance(v, str) else json.dumps(v, default=str)}" for k, v in value.items()]
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if name in MAPPINGS and not all(isinstance(v, str) for v in values):
        raise InvalidConfigError(f"{key} maps names to values, as {{name: value}}, not {value!r:.60}")
    return values

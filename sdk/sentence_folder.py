"""What a folder of sentence-transformers says beside its config: how embeddings are pooled, and how long a text may be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InvalidConfigError
from .pooling import Pooling, PoolingKind

_KINDS: Mapping[str, PoolingKind] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""Its names, in the order in which it puts the vectors of several end to end."""
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The flags of earlier versions → the same names."""


def read_pooling(folder: Path) -> Pooling | None:
    """How a checkpoint pools; None where its folder is not of that form.

    Raises:
        InvalidConfigError: It asks for a step that the engine does not take, or a file cannot be read.
    """
    listed = folder / "modules.json"
    if not listed.is_file():
        return None
    kinds: tuple[PoolingKind, ...] | None = None
    normalize = False
    for module in _read(listed):
        name = str(module.get("type", "")).rpartition(".")[2]
        if name == "Pooling":
            kinds = _kinds(folder / str(module.get("path", "")) / "config.json")
        elif name == "Normalize":
            normalize = True
        elif name != "Transformer":
            raise InvalidConfigError(
                f"{listed} asks for a {name or 'nameless'} module; a Transformer, Pooling and Normalize are what this "
                "engine runs of it",
                param="model",
            )
    if kinds is None:
        raise InvalidConfigError(f"{listed} names no Pooling module, so that it makes no embedding", param="model")
    return Pooling(kinds, normalize, _max_length(folder))


def _kinds(path: Path) -> tuple[PoolingKind, ...]:
    said = _read(path)
    modes = said.get("pooling_mode")
    if modes is None:
        modes = [name for flag, name in _FLAGS.items() if said.get(flag)]
    named = {modes} if isinstance(modes, str) else set(modes)
    unknown = sorted(named - set(_KINDS))
    if unknown or not named:
        raise InvalidConfigError(
            f"{path} pools by {', '.join(unknown) or 'nothing'}; known: {', '.join(_KINDS)}", param="model"
        )
    return tuple(kind for name, kind in _KINDS.items() if name in named)


def _max_length(folder: Path) -> int | None:
    path = folder / "sentence_bert_config.json"
    found = _read(path).get("max_seq_length") if path.is_file() else None
    return found if isinstance(found, int) and found > 0 else None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InvalidConfigError(f"{path} cannot be read: {e}", param="model") from e

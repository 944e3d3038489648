"""A model's folder: where it is, what its configs say, and its weights as a checked stream of tensors."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdk._later import models_later
from sdk.config_view import ConfigView

from .errors import CorruptWeightsError, InvalidConfigError, ModelNotFoundError, WeightsError
from .progress import progress

MAPPED_BYTES = 64 * 2**20
"""Of a file that are read before it is opened anew."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def locate(model: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a model: a folder as it is; a hub id is downloaded, with a progress bar.

    Args:
        model: Folder or hub id.
        revision: Of a hub id.
        weights: Whether the weights are wanted; without, the little files are enough.

    Raises:
        ModelNotFoundError: There is no such folder or id, or the hub is out of reach.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(
                f"{folder} has no config.json: a model's folder in HF layout is needed", param="model"
            )
        return folder
    if folder.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelNotFoundError(
            f"there is no folder {model!r}, and it is not a hub id (name/model) either; "
            "check the path, or use a shipped model such as demo/llava",
            param="model",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.json", "*.jinja", "*.txt", "*.model", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except RepositoryNotFoundError as e:
        raise ModelNotFoundError(
            f"the hub has no model {model!r}, or it needs a token (HF_TOKEN)", param="model"
        ) from e
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as e:
        raise ModelNotFoundError(
            f"{model!r} is no folder here and could not be fetched from the hub ({type(e).__name__}); "
            "check the name and the connection, or give the path of a folder",
            param="model",
        ) from e


def _number(value: dict[str, Any]) -> Any:
    """A JSON object; as a number where transformers wrote one that JSON does not have: `{"__float__": "Infinity"}`."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, opened.

    Attributes:
        folder: Where it is.
        overrides: Values put in the place of those in config.json.
    """

    folder: Path
    overrides: Mapping[str, Any]

    @cached_property
    def raw_config(self) -> dict[str, Any]:
        """config.json, with the overrides."""
        path = self.folder / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"), object_hook=_number)
        except (OSError, ValueError) as e:
            raise InvalidConfigError(f"{path} cannot be read: {e}", param="model") from e
        if not isinstance(values, dict):
            raise InvalidConfigError(f"{path} must hold a JSON object", param="model")
        return _merge(values, self.overrides)

    @property
    def view(self) -> ConfigView:
        """config.json without torch."""
        return ConfigView(self.raw_config)

    @property
    def architecture(self) -> str:
        """The architecture that config.json names."""
        name = self.view.architecture
        if name is None:
            raise InvalidConfigError(
                f'{self.folder / "config.json"} names no architecture; add "architectures": ["…"]',
                param="architectures",
            )
        return name

    @cached_property
    def hf_config(self) -> Any:
        """The config parsed by transformers; by its base class where transformers does not know the model_type."""
        raw = dict(self.raw_config)
        _check_sizes(raw)
        model_type = raw.get("model_type", "")
        with models_later():
            from transformers import CONFIG_MAPPING, PretrainedConfig

            # Not `.get`: the mapping is lazy, and its `get` sees only what was loaded before.
            known = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else PretrainedConfig  # noqa: SIM401
            try:
                config = known.from_dict({k: v for k, v in raw.items() if k != "auto_map"})
            except Exception as e:  # transformers validates with exceptions of many kinds
                raise InvalidConfigError(
                    f"{self.folder / 'config.json'} is refused by transformers: {e}", param="model"
                ) from e
        return config

    def generation_defaults(self) -> dict[str, Any]:
        """generation_config.json, or an empty mapping."""
        path = self.folder / "generation_config.json"
        if not path.is_file():
            return {}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as e:
            raise InvalidConfigError(f"{path} cannot be read: {e}") from e
        return values if isinstance(values, dict) else {}

    def weight_files(self) -> list[Path]:
        """The safetensors files, those of the index where there is one.

        Raises:
            WeightsError: There are none, or only pickles.
            CorruptWeightsError: The index names a file that is missing.
        """
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as e:
                raise CorruptWeightsError(f"{index} is no safetensors index: {e}") from e
            missing = [n for n in names if not (self.folder / n).is_file()]
            if missing:
                raise CorruptWeightsError(
                    f"{index.name} names {len(missing)} files that are not in {self.folder}: {', '.join(missing[:5])}; "
                    "download them again"
                )
            return [self.folder / n for n in names]
        files = sorted(self.folder.glob("*.safetensors"))
        if files:
            return files
        pickles = sorted(p.name for pattern in _PICKLES for p in self.folder.glob(pattern))
        if pickles:
            raise WeightsError(
                f"{self.folder} has only pickled weights ({', '.join(pickles[:3])}), and a pickle runs code when it is opened; "
                "convert them once, on a machine you trust: transformers' model.save_pretrained(folder) writes safetensors"
            )
        raise WeightsError(f"{self.folder} has no *.safetensors file")

    def tensor_names(self) -> list[str]:
        """Names of all tensors, from the files' headers; empty where only the little files are at hand."""
        from safetensors import safe_open

        try:
            files = self.weight_files()
        except WeightsError:
            return []
        names: list[str] = []
        for file in files:
            check_safetensors(file)
            with safe_open(file, framework="numpy") as opened:
                names += opened.keys()
        return names

    def tensors(
        self, *, skip: Callable[[str], bool] | None = None, check: bool = False, quiet: bool = False
    ) -> Iterator[tuple[str, Tensor]]:
        """Stream the tensors of every file, one at a time.

        Args:
            skip: Names that are not wanted: those tensors are not read.
            check: Refuse NaN and infinity.
            quiet: No progress bar.

        Raises:
            CorruptWeightsError: A file is truncated, empty, a pointer, or not what its header says.
        """
        from safetensors import SafetensorError

        files = self.weight_files()
        for file in files:
            check_safetensors(file)
        seen: dict[str, Path] = {}

        def wanted(file: Path, name: str) -> bool:
            if name in seen:
                raise CorruptWeightsError(f"tensor {name!r} is both in {seen[name].name} and in {file.name}")
            seen[name] = file
            return skip is None or not skip(name)

        for file in progress(files, "loading weights", unit="file", quiet=quiet):
            try:
                for name, tensor in _read(file, functools.partial(wanted, file)):
                    if check and tensor.is_floating_point() and not torch.isfinite(tensor).all():
                        raise CorruptWeightsError(f"tensor {name!r} in {file} holds NaN or infinity")
                    yield name, tensor
                    del tensor  # its part of the file stays mapped as long as somebody holds it
            except SafetensorError as e:
                raise CorruptWeightsError(f"{file} cannot be read: {e}; download it again") from e


def _read(file: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, which is opened anew now and then: what was read of a mapping counts as memory of the process, until
    the mapping is closed and nobody holds a tensor of it."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        names = list(reversed(opened.keys()))
    while names:
        mapped = 0
        with safe_open(file, framework="pt") as opened:
            while names and mapped < MAPPED_BYTES:
                name = names.pop()
                if wanted(name):
                    tensor = opened.get_tensor(name)
                    mapped += tensor.nbytes
                    yield name, tensor
                    del tensor


def check_safetensors(file: Path) -> None:
    """Compare a file's size with what its header says, before anything is read from it."""
    size = file.stat().st_size
    with file.open("rb") as f:
        head = f.read(256)
        if head.startswith(b"version https://git-lfs"):
            raise CorruptWeightsError(f"{file} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
        if size < 10:
            raise CorruptWeightsError(f"{file} has {size} bytes: it is empty or truncated; download it again")
        (length,) = struct.unpack("<Q", head[:8])
        if length > min(size - 8, 100_000_000):
            raise CorruptWeightsError(
                f"{file} is truncated or no safetensors file: header of {length} bytes, file of {size}"
            )
        f.seek(8)
        try:
            header = json.loads(f.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise CorruptWeightsError(f"{file} has an unreadable header; download it again") from e
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        word = "truncated" if size < expected else "longer than its header says"
        raise CorruptWeightsError(f"{file} is {word}: expected {expected} bytes, found {size}; download it again")


def _merge(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the overrides in their place, sub-configs merged key by key."""
    out = dict(values)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if nested else value
    return out


_BOUNDS = {
    "hidden_size": 1_000_000,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "vocab_size": 50_000_000,
    "intermediate_size": 10_000_000,
    "head_dim": 65_536,
    "max_position_embeddings": 1_000_000_000,
    "image_size": 100_000,
    "patch_size": 100_000,
}


def _check_sizes(raw: Mapping[str, Any], path: str = "") -> None:
    """Refuse sizes that are no sizes, before anything is allocated by them."""
    for key, value in raw.items():
        if isinstance(value, Mapping) and key.endswith("_config"):
            _check_sizes(value, f"{path}{key}.")
        limit = _BOUNDS.get(key)
        if limit is None or value is None or isinstance(value, (list, dict)):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
            raise InvalidConfigError(
                f"config.json: {path}{key} must be a whole number from 1 to {limit}, not {value!r}",
                param=f"{path}{key}",
            )

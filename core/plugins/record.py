"""The resolved record: what the main process sends to a worker, which verifies it and imports exactly that.

A worker may see other installed packages than its parent (another virtual environment, another path); it must say so at
start-up and not compute with other code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import importlib_metadata

from sdk import __version__ as SDK_VERSION
from sdk._api import API_VERSION
from sdk.errors import PluginContractError, PluginVersionError
from sdk.registry import IN_PROCESS, PARTS

from .claims import Claim, read_claims

if TYPE_CHECKING:
    from .resolved import ResolvedPlugin

FORMAT = 1
_CODE = {".py", ".so", ".pyd"}


def build_record(plugin: ResolvedPlugin) -> dict[str, Any]:
    """The record of a resolved plugin.

    Raises:
        PluginContractError: A part was registered as an object, which cannot be sent to another process.
    """
    objects = sorted(plugin.objects)
    if objects:
        parts = ", ".join(objects)
        raise PluginContractError(
            f"{plugin.architecture.name} was registered in this process with objects for {parts}, and an object serves "
            "in this process only; register 'module:attribute' strings to use workers",
            plugin=plugin.describe(),
        )
    targets = {part: target for part in PARTS if (target := plugin.target(part)) is not None}
    return {
        "format": FORMAT,
        "architecture": plugin.architecture.name,
        "entry": plugin.claim.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "origin": plugin.origin,
        "module": plugin.claim.module,
        "api": list(API_VERSION),
        "sdk": SDK_VERSION,
        "targets": targets,
        "registered": _registered(plugin),
        "sha256": _digest(plugin.claim, targets),
    }


def claims_of(record: Mapping[str, Any]) -> list[Claim]:
    """The claims of the module that a record names, once presence, version and hash are found equal here.

    Imports no plugin.

    Returns:
        The claims; none for a record of in-process targets.

    Raises:
        PluginContractError: The distribution is absent, its files differ, or the record is not one.
        PluginVersionError: Its version, the SDK's or the API's differ.
    """
    if record.get("format") != FORMAT:
        raise PluginContractError(f"not a resolved plugin record of format {FORMAT}: {dict(record)!r:.200}")
    name = f"{record['distribution']} {record['version']}".strip()
    if (record["sdk"], list(record["api"])) != (SDK_VERSION, list(API_VERSION)):
        raise PluginVersionError(
            f"the main process runs engine-plugin-sdk {record['sdk']} (API {record['api']}), this worker {SDK_VERSION} "
            f"(API {list(API_VERSION)}); {_where()}",
            plugin=name,
        )
    claims = [] if record["distribution"] == IN_PROCESS else _find(record, name)
    found = _digest(claims[0] if claims else None, record["targets"])
    if found != record["sha256"]:
        raise PluginContractError(
            f"{name}: its files in this worker are not those of the main process (sha256 {found[:12]}, and "
            f"{record['sha256'][:12]} there); restart after changing a plugin. {_where()}",
            plugin=name,
        )
    return claims


def check_targets(plugin: ResolvedPlugin, record: Mapping[str, Any]) -> None:
    """Raise `PluginContractError` when the plugin, now imported, names other parts than the record."""
    targets = {part: target for part in PARTS if (target := plugin.target(part)) is not None}
    if targets != dict(record["targets"]):
        different = sorted(part for part in PARTS if targets.get(part) != record["targets"].get(part))
        raise PluginContractError(
            f"{plugin.describe()} names another {' and '.join(different)} for {record['architecture']} here than in "
            "the main process; its hook must not depend on anything that differs between processes",
            plugin=plugin.describe(),
        )


def _find(record: Mapping[str, Any], name: str) -> list[Claim]:
    try:
        distribution = importlib_metadata.Distribution.from_name(record["distribution"])
    except importlib_metadata.PackageNotFoundError as error:
        message = f"{name}, which the main process uses for {record['architecture']}, is not installed in this worker"
        raise PluginContractError(f"{message}; {_where()}", plugin=name) from error
    if distribution.version != record["version"]:
        raise PluginVersionError(
            f"the main process uses {name}, this worker has {distribution.version}; {_where()}", plugin=name
        )
    claims = [claim for claim in read_claims(distribution) if claim.module == record["module"]]
    if any((claim.kind, claim.name) == ("architecture", record["entry"]) for claim in claims):
        return claims
    raise PluginContractError(f"{name} does not claim {record['entry']} in this worker; {_where()}", plugin=name)


def _digest(claim: Claim | None, targets: Mapping[str, str]) -> str:
    """SHA-256 of the distribution's RECORD, which lists its files' hashes; of the code itself where there is none."""
    if claim is not None and claim.origin == "wheel":
        record = importlib_metadata.Distribution.from_name(claim.distribution).read_text("RECORD")
        if record:
            return hashlib.sha256(record.encode()).hexdigest()
    modules = {target.partition(":")[0] for target in targets.values()}
    if claim is not None and claim.module:
        modules.add(claim.module)
    return digest_of_code(modules)


def digest_of_code(modules: Iterable[str]) -> str:
    """SHA-256 over names and contents of the code of these modules' outermost packages, framed by length."""
    digest = hashlib.sha256()
    for package in sorted({_outermost(module) for module in modules}):
        for name, file in sorted(_code_files(package)):
            content = file.read_bytes()
            for part in (name.encode(), content):
                digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _outermost(module: str) -> str:
    """The outermost package of a module that has code of its own, past namespace packages, which others share."""
    parts = module.split(".")
    for length in range(1, len(parts)):
        spec = _spec(".".join(parts[:length]))
        if spec is None or spec.origin is not None:
            return ".".join(parts[:length])
    return module


def _code_files(package: str) -> Iterable[tuple[str, Path]]:
    spec = _spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders and spec is not None and spec.origin is not None and Path(spec.origin).is_file():
        yield package, Path(spec.origin)
    for folder in folders:
        for file in Path(folder).rglob("*"):
            if file.suffix in _CODE and file.is_file():
                yield f"{package}/{file.relative_to(folder).as_posix()}", file


def _spec(module: str) -> Any:
    """Where a module would come from; `None` where nobody knows, as for a notebook's `__main__`."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def _registered(plugin: ResolvedPlugin) -> dict[str, Any]:
    """The registrations by hand that a worker repeats: parts, and the fields that were given with them."""
    if plugin.registration is None:
        return {"parts": {}, "fields": {}}
    plain = plugin.architecture.model_dump(mode="json", include=set(plugin.registration.fields))
    return {"parts": dict(plugin.registration.parts), "fields": plain}


def _where() -> str:
    return f"this worker runs {sys.executable} with the path {sys.path}"

"""Level 0: what can be said of a plugin without running its model."""

from __future__ import annotations

from collections.abc import Sequence

from ..dependencies import undeclared
from ..law import Broken, Law, law
from ..process_settings import settings_of_the_process
from ..source import (
    Finding,
    Rule,
    cuda_at_import,
    evaluations,
    former_hooks,
    imports_of_core,
    networks,
    pickles,
    remote_code,
    search,
)
from ..subject import Subject


@law("L0.metadata", "The entry points and the hook name the same architectures and model_types.")
def metadata(subject: Subject) -> str:
    said, probe = subject.metadata, subject.probe
    if probe.error:
        raise Broken(f"{said.module} cannot be imported or asked: {probe.error}", cause=f"the module {said.module}")
    pairs = (
        ("architecture", "engine.v1", said.architectures, probe.architectures),
        ("model_type", "engine.v1.model_types", said.model_types, probe.model_types),
    )
    for kind, group, by_metadata, by_hook in pairs:
        for name in sorted(by_metadata ^ by_hook):
            here, there = (
                (group, "engine_architectures()") if name in by_metadata else ("engine_architectures()", group)
            )
            raise Broken(
                f"the {kind} {name} is in {here} but not in {there}",
                smallest=f"{kind} {name}",
                cause="pyproject.toml and plugin.py differ; or the package was not installed again after a change",
            )
    subject.plugin  # noqa: B018  whatever else the engine has against it
    return f"{len(said.architectures)} architectures, {len(said.model_types)} model_types"


@law("L0.torch-free", "Importing the plugin module, its capabilities function and its options loads nothing heavy.")
def torch_free(subject: Subject) -> str:
    for name, place in subject.probe.heavy.items():
        raise Broken(
            f"importing {subject.metadata.module} loads {name}",
            smallest=f"python -c 'import {subject.metadata.module}'",
            cause=f"{place or 'an import'}: move it into the parts that the record names as 'module:attribute'",
        )
    return "in a process of its own"


def _law(id_: str, statement: str, rule: Rule, cure: str) -> Law:
    """A law that one search over the source checks."""

    def check(subject: Subject) -> str:
        files = subject.sources
        findings = search(files, rule)
        if findings:
            raise _broken(findings, cure)
        return f"{len(files)} files"

    return Law(id_, statement, check)


def _broken(findings: Sequence[Finding], cure: str) -> Broken:
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return Broken(f"{findings[0]}{more}", smallest=f"{findings[0].file}:{findings[0].line}", cause=cure)


no_core = _law(
    "L0.no-core",
    "A plugin imports sdk and its upstream libraries, never core.",
    imports_of_core,
    "whatever it needs of the engine comes through ModelContext; what is missing there belongs into sdk",
)
former_hook = _law(
    "L0.no-former-hook",
    "No method bears the name of a hook that is never called.",
    former_hooks,
    "an older guide's or another engine's hook; write the one it names",
)
remote = _law(
    "L0.no-remote-code",
    "trust_remote_code is never anything but False.",
    remote_code,
    "it runs code out of a downloaded checkpoint; what that code does belongs into the plugin",
)
pickle = _law(
    "L0.no-pickle",
    "Nothing opens a pickle: no torch.load, no pickle, no allow_pickle.",
    pickles,
    "a pickle runs code when it is opened; read safetensors or JSON",
)
evaluation = _law(
    "L0.no-eval",
    "No text is run as code: no eval, exec or compile.",
    evaluations,
    "parse it with json or ast.literal_eval",
)
network = _law(
    "L0.no-network",
    "No library that reaches out of the machine is imported.",
    networks,
    "the engine's media door fetches what comes from outside; a checkpoint is a folder when a plugin sees it",
)
no_cuda = _law(
    "L0.no-cuda-at-import",
    "Importing a module touches no CUDA device.",
    cuda_at_import,
    "a CUDA context made at import breaks worker processes; take the device from the tensors at hand",
)

no_process_settings = _law(
    "L0.no-process-settings",
    "Nothing is set that belongs to the whole process.",
    settings_of_the_process,
    "other models run in the same process; give dtype and device to what is made, and leave the rest to the engine",
)


@law("L0.dependencies", "Every library that is imported is one that the distribution requires.")
def dependencies(subject: Subject) -> str:
    said = subject.metadata
    findings = search(subject.sources, undeclared(said.distribution, said.module.partition(".")[0]))
    if findings:
        raise _broken(
            findings,
            "dependencies in pyproject.toml; if it is another plugin's package: plugins do not import each other, ctx.build "
            "finds a model's parts",
        )
    return f"{len(subject.sources)} files"


LAWS = (
    metadata,
    torch_free,
    no_core,
    former_hook,
    remote,
    pickle,
    evaluation,
    network,
    no_cuda,
    no_process_settings,
    dependencies,
)

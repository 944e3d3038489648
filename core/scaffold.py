"""`scaffold`: a new plugin's files, rendered from `templates/plugin` by copier. What it writes works untouched."""

from __future__ import annotations

import difflib
import json
import keyword
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from sdk import __version__ as sdk_version

from .errors import InvalidConfigError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Start:
    """What a kind of plugin starts from.

    Attributes:
        about: What it is for, in a few words.
        suffix: Of the architecture's name, or of the class that a kind without architectures registers.
        config_class, hf_class: Of transformers: the oracle that the starting point equals.
        model_type: Theirs.
        mapping: transformers' table of the architectures of this kind; empty for a kind without any.
    """

    about: str
    suffix: str
    config_class: str = ""
    hf_class: str = ""
    model_type: str = ""
    mapping: str = ""


@dataclass(frozen=True)
class Answers:
    """What the template is told, by the names of its questions."""

    name: str
    kind: str
    package: str
    class_name: str
    proved: str
    config_class: str
    hf_class: str
    model_type: str
    sdk_version: str

    @property
    def begins_with(self) -> str:
        """The file in which an author begins."""
        return "model.py" if self.hf_class else "scheme.py"


def scaffold(name: str, kind: str, into: Path, *, upstream: str | None = None) -> Answers:
    """Write a new plugin.

    Args:
        name: Of the plugin, as in `engine-plugin-NAME`: lower-case words joined by dashes.
        kind: One of `kinds()`.
        into: The folder to make; must not exist, or be empty.
        upstream: An architecture that transformers has, for which the plugin shall be; None: one of its own.

    Raises:
        InvalidConfigError: Name, kind or architecture are unknown, the folder is in use or cannot be written, or copier is not
            installed.
    """
    try:
        from copier import run_copy
    except ImportError:
        raise InvalidConfigError(
            "a new plugin is rendered by copier, which is not installed; try: pip install 'engine-plugin-sdk[author]'"
        ) from None
    answers = _answers(name, kind, upstream)
    try:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise InvalidConfigError(
                f"{into} is there already, and not empty; name another with --output", param="--output"
            )
        run_copy(str(_template()), into, data=asdict(answers), defaults=True, quiet=True, unsafe=False, vcs_ref=None)
    except OSError as e:
        raise InvalidConfigError(
            f"{into} cannot be written: {e.strerror or e}; name another with --output", param="--output"
        ) from e
    return answers


def kinds() -> dict[str, Start]:
    """The kinds of plugins that can be made, and what each starts from."""
    said = json.loads((_template() / "kinds.json").read_text(encoding="utf-8"))
    return {kind: Start(**start) for kind, start in said.items()}


def _answers(name: str, kind: str, upstream: str | None) -> Answers:
    package = f"engine_plugin_{name.replace('-', '_')}"
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InvalidConfigError(
            f"{name!r} is no name for a plugin: lower-case letters and digits, joined by dashes, as in engine-plugin-my-model",
            param="NAME",
        )
    starts = kinds()
    if kind not in starts:
        raise InvalidConfigError(f"--kind is one of {', '.join(starts)}, not {kind!r}", param="--kind")
    start = starts[kind]
    if upstream is not None and not start.mapping:
        raise InvalidConfigError(f"--from names a model; a plugin of kind {kind} has none", param="--from")
    if upstream is None:
        class_name = "".join(word[:1].upper() + word[1:] for word in name.split("-")) + start.suffix
        proved = class_name if start.mapping else name
        found = start.config_class, start.hf_class, start.model_type
        return Answers(name, kind, package, class_name, proved, *found, _sdk_range())
    model_type, config_class = _known_to_transformers(upstream, start, kind)
    return Answers(name, kind, package, upstream, upstream, config_class, upstream, model_type, _sdk_range())


def _known_to_transformers(architecture: str, start: Start, kind: str) -> tuple[str, str]:
    """An architecture's model_type and the class of its config."""
    from transformers.models.auto import configuration_auto, modeling_auto

    table: dict[str, str | tuple[str, ...]] = getattr(modeling_auto, start.mapping)
    classes = {
        cls: model_type
        for model_type, found in table.items()
        for cls in (found if isinstance(found, tuple) else (found,))
    }
    if architecture not in classes:
        near = difflib.get_close_matches(architecture, classes, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidConfigError(
            f"transformers has no {architecture} among its models of kind {kind}{hint}",
            param="--from",
        )
    model_type = classes[architecture]
    return model_type, configuration_auto.CONFIG_MAPPING_NAMES[model_type]


def _sdk_range() -> str:
    """Versions of the SDK that a plugin written today works with."""
    major, minor = (int(part) for part in sdk_version.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"


def _template() -> Path:
    """The template's folder: within the wheel, or at the top of the source tree."""
    package = Path(__file__).parent
    for folder in (package / "_templates" / "plugin", package.parent / "templates" / "plugin"):
        if (folder / "copier.yml").is_file():
            return folder
    raise InvalidConfigError(
        "this installation came without the plugin template; install engine-plugin-sdk from a wheel"
    )

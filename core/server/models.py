"""The models that are served, by the names that clients know them by."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import InvalidRequestError, ModelNotFoundError, RequestError
from ..pooling.tasks import DOES
from .client import EngineClient


class UnsupportedTaskError(RequestError):
    """No model that is served does what the route is for."""

    code = "unsupported_task"
    status = 404


@dataclass(frozen=True)
class ServedModel:
    """A model and its engine.

    Attributes:
        name: What clients call it.
        engine: Runs it.
        tasks: What it is for: `generate`, `transcription`, `embed`, `classify`, `score`.
        modalities: Media that it takes.
        speechless: It would generate text of conversations, which alone bring what its encoder takes, but has no chat template.
        created: When it was started, in seconds since 1970.
    """

    name: str
    engine: EngineClient
    tasks: tuple[str, ...]
    modalities: tuple[str, ...]
    speechless: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def plugin(self) -> str:
        """Who runs it: distribution and version."""
        return self.engine.plan.plugin

    def require(self, task: str) -> None:
        """Refuse what the model is not for."""
        if task not in self.tasks:
            raise UnsupportedTaskError(
                f"{self.name!r} ({self.engine.plan.architecture}) does not {DOES[task]}; it is for: "
                f"{', '.join(self.tasks)}{_cure([self], task)}",
                param="model",
            )


class Models:
    """What a request's `model` chooses among."""

    def __init__(self, served: Mapping[str, ServedModel]) -> None:
        self._served = dict(served)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served.values())

    def find(self, name: str | None) -> ServedModel:
        """The model of this name; without a name, the only one.

        Raises:
            ModelNotFoundError: There is none.
        """
        if name is None:
            if len(self._served) == 1:
                return next(iter(self._served.values()))
            raise InvalidRequestError(
                f"say which model: {', '.join(self._served)}", param="model", code="missing_model"
            )
        if name not in self._served:
            near = difflib.get_close_matches(name[:200], self._served, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"served here: {', '.join(self._served)}"
            raise ModelNotFoundError(f"there is no model {name[:100]!r}; {hint}", param="model")
        return self._served[name]

    def choose(self, name: str | None, task: str) -> ServedModel:
        """The model of this name, for a task; without a name, the only one that does it."""
        able = [model for model in self if task in model.tasks]
        if not able:
            offered = "; ".join(f"{m.name}: {', '.join(m.tasks)}" for m in self)
            raise UnsupportedTaskError(
                f"no model that is served here can {DOES[task]} ({offered}){_cure(self, task)}", param="model"
            )
        if name is None and len(able) == 1:
            return able[0]
        model = self.find(name)
        model.require(task)
        return model


def _cure(models: Iterable[ServedModel], task: str) -> str:
    """What would make one of the models do it."""
    able = next((model.name for model in models if model.speechless), None) if task == "generate" else None
    return f"; with a --chat-template that takes a message's parts, {able!r} answers conversations" if able else ""

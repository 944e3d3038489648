"""Level 1, states: what the layers keep of a sequence is what the capabilities say."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from ..law import Broken, NotApplicable, law

if TYPE_CHECKING:
    from ..subject import Subject

CONFIG = "the tiny checkpoint's config.json"


@law(
    "L1.states",
    "Capabilities name the kinds of state that layers keep, and promise no shared pages beside them.",
    needs=("L1.meta",),
)
def states(subject: Subject) -> str:
    from ...layers import StateLayer
    from ...layers.state import StateKind

    subject.require("model")
    layers = {path: m for path, m in subject.build().named_modules() if isinstance(m, StateLayer)}
    kept, told = {layer.kind for layer in layers.values()}, subject.capabilities
    said = set(told.attention) & set(get_args(StateKind))
    if kept != said:
        raise Broken(
            f"layers keep states of the kinds {sorted(kept)}, and capabilities name {sorted(said)}",
            smallest=next(iter(layers), CONFIG),
            cause="attention= of the capabilities; kinds are told from the config, as its layers are",
        )
    if not layers:
        raise NotApplicable("no layer keeps a state")
    if told.prefix_caching:
        raise Broken(
            f"{len(layers)} layers keep a state, and capabilities say prefix_caching=True",
            smallest=next(iter(layers)),
            cause="a page holds keys and values alone: prefix_caching=False",
        )
    for path, layer in layers.items():
        _check_specs(path, layer.state_specs())
    return f"{len(layers)} layers, {', '.join(sorted(kept))}"


def _check_specs(path: str, specs: object) -> None:
    from ...layers import StateSpec

    right = isinstance(specs, dict) and specs and all(isinstance(spec, StateSpec) for spec in specs.values())
    if not right:
        raise Broken(
            f"state_specs returns {specs!r:.100}",
            smallest=path,
            cause="it is a dict from names to StateSpec, not empty",
        )


LAWS = (states,)

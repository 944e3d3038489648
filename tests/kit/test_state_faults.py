"""States that begin anywhere but at zero, or that the engine does not know of, are caught: in models, and in an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_plugin_lfm2.model import Lfm2ForCausalLM
from engine_plugin_mamba.model import Mamba2ForCausalLM
from torch import Tensor, nn

from core import step
from core.cache.slots import StateRun, state_runs
from core.scheduler import Scheduled
from sdk import Capabilities
from sdk.layers import ShortConv
from sdk.testing import LawResult, Suite

LFM2, MAMBA2 = "Lfm2ForCausalLM", "Mamba2ForCausalLM"
FIELDS: dict[str, dict[str, Any]] = {
    LFM2: {
        "tiny": "engine_plugin_lfm2.tiny:lfm2",
        "capabilities": Capabilities(attention=("full", "convolution"), prefix_caching=False),
    },
    MAMBA2: {
        "tiny": "engine_plugin_mamba.tiny:mamba2",
        "capabilities": Capabilities(attention=("state-space",), prefix_caching=False),
    },
}
Planted = Callable[..., LawResult]


def with_convolutions(model: Lfm2ForCausalLM, kind: Callable[..., nn.Module]) -> None:
    """Give every block of convolution another one."""
    config = model.config
    for block in model.model.layers:
        if hasattr(block, "conv"):
            block.conv = kind(config.hidden_size, config.conv_L_cache, config.conv_bias)


class OwnState(ShortConv):
    """Keeps the last tokens on itself, for the next call that decodes."""

    def recur(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        state = {name: spec.zeros(1, x.dtype, x.device) for name, spec in self.state_specs().items()}
        state = getattr(self, "kept", state) if len(x) == 1 else state
        out = self.advance(x[None], state=state)[0]
        self.kept = state
        return out


class KeepsItsOwnState(Lfm2ForCausalLM):
    """Right for one sequence at a time: the state of another is taken for its own."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        with_convolutions(self, OwnState)


class Forgets(ShortConv):
    """Computes each call as if nothing had been before: right for whole prompts."""

    def advance(self, x: Tensor, *, state: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().advance(x, state={name: torch.zeros_like(kept) for name, kept in state.items()})


class ForgetsItsState(Lfm2ForCausalLM):
    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        with_convolutions(self, Forgets)


@pytest.mark.parametrize(
    ("model", "what", "cause"),
    [
        (KeepsItsOwnState, "when it is asked again after others", "a state that does not begin at zero"),
        (ForgetsItsState, "from the model by itself", "the prompt is right and tokens after it are not"),
    ],
)
def test_a_model_that_loses_or_mixes_states_is_caught(planted: Planted, model: type, what: str, cause: str) -> None:
    result = planted("L5.paged", LFM2, "model", model, **FIELDS[LFM2])
    assert result.status == "failed", result.explain()
    assert what in result.detail
    assert cause in result.cause


@contextmanager
def keeping_states(of: Callable[[Scheduled], bool]) -> Iterator[None]:
    """An engine that does not begin the states of some sequences at zero."""

    def faulty(order: list[Scheduled], device: torch.device) -> list[StateRun]:
        return state_runs([replace(s, start=max(1, s.start)) if of(s) else s for s in order], device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "state_runs", faulty)
        yield


@pytest.mark.parametrize("architecture", [LFM2, MAMBA2])
def test_an_engine_that_hands_on_a_used_slot_is_caught(architecture: str) -> None:
    with keeping_states(lambda s: True), Suite(architecture) as suite:
        result = suite.check("L5.paged")
    assert result.status == "failed", result.explain()


@pytest.mark.parametrize("architecture", [LFM2, MAMBA2])
def test_an_engine_that_keeps_states_over_a_preemption_is_caught(architecture: str) -> None:
    with keeping_states(lambda s: s.request.admissions > 1), Suite(architecture) as suite:
        result = suite.check("L5.preemption")
    assert result.status == "failed", result.explain()
    assert "after it lost its place" in result.detail
    assert "keeps from the first time" in result.cause


@pytest.mark.parametrize(
    ("capabilities", "what"),
    [
        (Capabilities(prefix_caching=False), "keep states of the kinds ['state-space'], and capabilities name []"),
        (Capabilities(attention=("state-space", "linear"), prefix_caching=False), "name ['linear', 'state-space']"),
        (Capabilities(attention=("state-space",)), "capabilities say prefix_caching=True"),
    ],
)
def test_capabilities_that_are_silent_about_states_are_caught(
    planted: Planted, capabilities: Capabilities, what: str
) -> None:
    fields = {**FIELDS[MAMBA2], "capabilities": capabilities}
    result = planted("L1.states", MAMBA2, "model", Mamba2ForCausalLM, **fields)
    assert result.status == "failed", result.explain()
    assert what in result.detail

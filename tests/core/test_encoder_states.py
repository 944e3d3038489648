"""Encoder states under everything that can happen to their requests: written once, shared by equal media, never another's."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from core.cache.states import StatePool
from core.request import Request, Status
from core.sampling import SamplingParams
from core.scheduler import Scheduled
from sdk.multimodal import ProcessedItem
from sdk.multimodal.updates import PlaceholderRange

from .test_pages import SchedulerMachine

ROWS = 5


class StatesMachine(SchedulerMachine):
    """The scheduler's machine, for sequences that attend over something; there are fewer states than may run."""

    STATES = 2

    def __init__(self) -> None:
        super().__init__()
        self.states = self.scheduler.states = StatePool(self.STATES, ROWS)
        self.held: dict[int, object] = {}

    @rule(
        prompt=st.integers(1, 24),
        output=st.integers(1, 12),
        heard=st.sampled_from([b"", b"x", b"y", b"z"]),
        priority=st.integers(0, 2),
    )
    def arrive(self, prompt: int, output: int, heard: bytes, priority: int) -> None:
        self.number += 1
        nowhere = PlaceholderRange("audio", 0, 0, 0, None)  # type: ignore[arg-type]  # nobody looks for its tokens
        request = Request(
            request_id=str(self.number),
            token_ids=list(range(prompt)),
            prompt_len=prompt,
            params=SamplingParams(),
            max_tokens=output,
            eos_token_ids=frozenset(),
            seed=0,
            encoder_item=ProcessedItem({}, nowhere, None, heard),
            priority=priority % self.PRIORITIES,
        )
        self.scheduler.add(request)
        self.alive.append(request)

    def heard(self, request: Request) -> object:
        """What a sequence attends over."""
        assert request.encoder_item is not None
        return request.encoder_item.key or request.request_id

    def wanted(self, request: Request, at: int) -> object:
        return self.heard(request), super().wanted(request, at)

    def rows(self, plan: list[Scheduled]) -> list[int]:
        return [ROWS for s in plan if s.encode_state]

    def encode(self, s: Scheduled) -> None:
        super().encode(s)
        request = s.request
        assert 1 <= request.state <= self.STATES
        if s.encode_state:
            assert request.state_len == 0
            self.held[request.state], request.state_len = self.heard(request), ROWS
        assert request.state_len == ROWS
        assert self.held[request.state] == self.heard(request), "it reads what another heard"

    @rule()
    def forget_states(self) -> None:
        self.states.pool.forget()

    @invariant()
    def states_belong_to_the_running(self) -> None:
        held = {r.state for r in self.alive if r.state > 0}
        assert self.states.pool.num_free == self.STATES - len(held)
        assert all((r.state > 0) == (r.status is Status.RUNNING) for r in self.alive)

    def teardown(self) -> None:
        super().teardown()
        assert self.states.pool.num_free == self.STATES


class SharingMachine(StatesMachine):
    """The same, with pages shared by equal beginnings, and priorities."""

    CACHING, PRIORITIES = True, 3


machines: tuple[Any, ...] = (StatesMachine, SharingMachine)
for machine in machines:
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStates = StatesMachine.TestCase
TestStatesShared = SharingMachine.TestCase

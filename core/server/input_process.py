"""Prompts are processed in a process of their own: what runs there. One prompt at a time: templates, tokens, media.

All of it is Python, a plugin's and libraries' that decode what strangers send. There it delays neither a step nor the event loop;
what hangs is ended with its process, and what breaks it breaks nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sdk._lazy import collector_paused

from ..errors import EngineError
from . import wire
from .faults import to_fault
from .letters import read_pooling, write_prompt
from .line import Line
from .worker import receive_setup, work

if TYPE_CHECKING:
    from ..inputs import InputProcessor, ProcessedInput

logger = logging.getLogger(__name__)
TEMPLATE_SECONDS = 5.0
"""For a template to render a conversation."""


def main(given: Mapping[str, Any]) -> None:
    """What the process does; see `work`."""
    work(given, wire.ToInputs, _run)


def _run(line: Line) -> bool:
    import torch

    torch.set_num_threads(1)  # the others are the engine's
    try:
        inputs = _made(receive_setup(line))
    except EngineError as error:
        line.send(wire.Died(to_fault(error)))
        return False
    line.send(wire.Hello())
    while not isinstance(message := line.receive(None), wire.Close):
        if isinstance(message, wire.Limits):
            inputs.keep_to(message.max_model_len, message.item_tokens)
            inputs.cross_attention = message.cross_attention
        elif isinstance(message, wire.ResetCaches):
            inputs.memory.clear()
        elif isinstance(message, wire.Ask):
            line.send(_answer(inputs, message))
    return True


@collector_paused()
def _made(setup: wire.Setup) -> InputProcessor:
    from ..blueprint import Blueprint
    from ..inputs import InputProcessor
    from ..plugins import Catalog

    Catalog.use(Catalog.from_records(setup.records))
    made = InputProcessor(Blueprint.of(setup.model, setup.options))
    made.chat.time_limit = lambda: ended_after(TEMPLATE_SECONDS)
    return made


@contextlib.contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End what runs within after so many seconds. For the main thread alone, and for Python: a call into a library goes on.

    Raises:
        TimeoutError: It was ended.
    """

    def end(number: int, frame: object) -> None:
        raise TimeoutError(f"it takes more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _processed(inputs: InputProcessor, ask: wire.Ask) -> ProcessedInput:
    if ask.is_chat:
        return inputs.process_chat(ask.value, **ask.arguments)
    if ask.pooling is not None:
        return inputs.process_pooled(ask.value, read_pooling(ask.pooling))
    return inputs.process(ask.value)


def _answer(inputs: InputProcessor, ask: wire.Ask) -> wire.Made | wire.Failed:
    try:
        return write_prompt(_processed(inputs, ask))
    except EngineError as error:
        return wire.Failed(to_fault(error))
    except Exception as error:
        logger.exception("a prompt could not be processed")
        return wire.Failed(to_fault(error))

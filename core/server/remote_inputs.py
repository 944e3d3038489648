"""An `InputProcessor` that has others do the work: prompts go to the processes of a pool, all else is answered here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..blueprint import Blueprint
from ..inputs import InputProcessor, ProcessedInput
from ..pooling import PoolingParams
from . import wire
from .input_pool import InputPool
from .letters import read_prompt, write_pooling


class RemoteInputs(InputProcessor):
    """Asked by threads that may wait.

    Args:
        found: The model.
        pool: The processes.
    """

    def __init__(self, found: Blueprint, pool: InputPool) -> None:
        super().__init__(found)
        self.pool = pool

    def keep_to(self, max_model_len: int, item_tokens: Mapping[str, int | None]) -> None:
        """See `InputProcessor.keep_to`."""
        super().keep_to(max_model_len, item_tokens)
        self.pool.limits = wire.Limits(max_model_len, dict(item_tokens), list(self.cross_attention))

    def process(self, prompt: Any) -> ProcessedInput:
        """See `InputProcessor.process`."""
        if _is_ids(prompt):  # nothing to be done but to look at them
            return super().process(prompt)
        try:
            made = self.pool.ask(wire.Ask(False, wire.as_it_is(prompt), {}))
        except (TypeError, OverflowError, UnicodeError):  # an object of this process's, or text that is none
            return super().process(prompt)
        return read_prompt(made, self.tokenizer)

    def process_pooled(self, prompt: Any, params: PoolingParams) -> ProcessedInput:
        """See `InputProcessor.process_pooled`."""
        if _is_ids(prompt):
            return super().process_pooled(prompt, params)
        try:
            made = self.pool.ask(wire.Ask(False, wire.as_it_is(prompt), {}, write_pooling(params)))
        except (TypeError, OverflowError, UnicodeError):
            return super().process_pooled(prompt, params)
        return read_prompt(made, self.tokenizer)._replace(pooling=params)

    def process_chat(
        self, messages: Sequence[Mapping[str, Any]], *, cache_salt: str = "", **template_kwargs: Any
    ) -> ProcessedInput:
        """See `InputProcessor.process_chat`."""
        arguments = {"cache_salt": cache_salt, **template_kwargs}
        try:
            made = self.pool.ask(wire.Ask(True, wire.as_it_is(messages), wire.as_it_is(arguments)))
        except (TypeError, OverflowError, UnicodeError):
            return super().process_chat(messages, cache_salt=cache_salt, **template_kwargs)
        return read_prompt(made, self.tokenizer)


def _is_ids(prompt: Any) -> bool:
    if isinstance(prompt, Mapping):
        return prompt.get("prompt_token_ids") is not None and not prompt.get("multi_modal_data")
    return not isinstance(prompt, str)


__all__ = ["RemoteInputs"]

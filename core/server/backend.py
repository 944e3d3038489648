"""What HTTP asks of an engine, wherever that runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Protocol

from ..llm import Messages, Prompt
from ..outputs import RequestOutput
from ..plan import EnginePlan
from ..sampling import SamplingParams


class Backend(Protocol):
    """An engine that serves asyncio programs: `core.AsyncLLM`, or a client of one in another process."""

    @property
    def plan(self) -> EnginePlan:
        """What start-up decided: plugin, dtype, pages."""

    def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """See `AsyncLLM.generate`."""

    def chat(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        tools: Sequence[Any] | None = None,
        **template_kwargs: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """See `AsyncLLM.chat`."""

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """See `AsyncLLM.abort`."""

    async def check_health(self) -> None:
        """See `AsyncLLM.check_health`."""

    async def close(self, *, drain: float | None = 0.0) -> None:
        """See `AsyncLLM.close`."""

    def get_tokenizer(self) -> Any:
        """See `AsyncLLM.get_tokenizer`."""

    def default_sampling_params(self) -> SamplingParams:
        """See `AsyncLLM.default_sampling_params`."""

"""Load for a server: clients that ask side by side, each one request after the other, and what each saw of its answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import random
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from .endpoint import Endpoint, ReplyError, delta_of, event_of, refusal

_WORDS = (
    "river stone light green seven market window paper garden winter music orange ladder silver table morning cloud "
    "simple engine forest picture number circle bridge yellow letter island quiet summer copper answer marble"
)
WORDS = _WORDS.split()
PROBES = (8, 40)
"""Words in the two requests from which the tokens of a word are learned."""


@dataclass(frozen=True)
class Work:
    """What is asked.

    Attributes:
        model: Of whom.
        requests: How many times.
        concurrency: Requests at a time.
        input_len, output_len: Tokens of each prompt and answer.
        images: Pictures with each prompt, of noise.
        image_size: Their width and height.
        ignore_eos: Have answers go on until they have their length. Servers of vLLM's family know it, and so do we.
        warmup: Requests before the clock starts, side by side: a server's first ones may have it make things ready.
        timeout: Seconds that a request may take.
        seed: Of what is asked: with one seed the same requests are sent.
    """

    model: str
    requests: int = 100
    concurrency: int = 16
    input_len: int = 128
    output_len: int = 64
    images: int = 0
    image_size: tuple[int, int] = (336, 336)
    ignore_eos: bool = True
    warmup: int = 0
    timeout: float = 600.0
    seed: int = 0


@dataclass
class Sample:
    """What a client saw of one answer, in seconds of its own clock.

    Attributes:
        start, end: When it asked, and when it had all.
        arrivals: When events with text came.
        prompt_tokens, tokens: As the server counted; without that, 0 and the number of events.
        error, message: What kind of thing went wrong, and what was said of it; None: nothing did.
    """

    start: float = 0.0
    end: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    tokens: int = 0
    error: str | None = None
    message: str | None = None


class Load:
    """Asks a server.

    Args:
        endpoint: The server.
        work: What is asked of it.
    """

    def __init__(self, endpoint: Endpoint, work: Work) -> None:
        self.endpoint, self.work = endpoint, work
        self._words = work.input_len

    async def run(self, on_done: Callable[[Sample], None] = lambda sample: None) -> list[Sample]:
        """All requests; those that fail are samples with an error.

        Args:
            on_done: Called after each.

        Raises:
            ReplyError: Not even the first request is answered.
        """
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        options = {**self.endpoint.client_options(), "timeout": self.work.timeout, "limits": limits}
        async with httpx2.AsyncClient(**options) as http:
            self._words = await self._words_of_a_prompt(http)
            warming = (self._ask(http, self._body(self.work.requests + i)) for i in range(self.work.warmup))
            await asyncio.gather(*warming)
            numbers = iter(range(self.work.requests))
            samples: list[Sample] = []

            async def client() -> None:
                for number in numbers:
                    sample = await self._ask(http, self._body(number))
                    samples.append(sample)
                    on_done(sample)

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.work.concurrency, self.work.requests)):
                    group.create_task(client())
        return samples

    async def _words_of_a_prompt(self, http: httpx2.AsyncClient) -> int:
        """How many words make a prompt of as many tokens as were asked for: two prompts tell what a word has, and what is
        around them. The server is warm then, too."""
        counts = []
        for words in PROBES:
            self._words = words
            sample = await self._ask(http, {**self._body(-words), "max_tokens": 1})
            if sample.error is not None:
                raise ReplyError(
                    f"{self.endpoint.base} does not serve such requests: {sample.message}", code=sample.error
                )
            counts.append(sample.prompt_tokens)
        a_word = (counts[1] - counts[0]) / (PROBES[1] - PROBES[0])
        if a_word <= 0:  # it does not say what it counts
            return self.work.input_len
        around = counts[0] - a_word * PROBES[0]
        return max(1, round((self.work.input_len - around) / a_word))

    def _body(self, number: int) -> dict[str, Any]:
        """One request, which no other begins like."""
        chance = random.Random(f"{self.work.seed}/{number}")
        content: Any = " ".join(chance.choices(WORDS, k=self._words))
        if self.work.images:
            pictures = (
                {"type": "image_url", "image_url": {"url": self._picture(chance)}} for _ in range(self.work.images)
            )
            content = [*pictures, {"type": "text", "text": content}]
        body = {
            "model": self.work.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.work.output_len,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return {**body, "ignore_eos": True} if self.work.ignore_eos else body

    def _picture(self, chance: random.Random) -> str:
        from PIL import Image

        width, height = self.work.image_size
        out = io.BytesIO()
        Image.frombytes("RGB", (width, height), chance.randbytes(width * height * 3)).save(out, "PNG", compress_level=0)
        return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"

    async def _ask(self, http: httpx2.AsyncClient, body: dict[str, Any]) -> Sample:
        sample = Sample(start=time.perf_counter())
        try:
            async with contextlib.aclosing(_events(http, body)) as events:
                async for event in events:
                    if delta_of(event):
                        sample.arrivals.append(time.perf_counter())
                    usage = event.get("usage")
                    if usage:
                        sample.prompt_tokens, sample.tokens = usage["prompt_tokens"], usage["completion_tokens"]
        except ReplyError as e:
            sample.error, sample.message = f"{e.http_status or 'in mid-stream'} {e.code}", str(e)
        except (httpx2.HTTPError, OSError, KeyError, TypeError) as e:
            sample.error, sample.message = type(e).__name__, str(e)[:300]
        sample.end = time.perf_counter()
        sample.tokens = sample.tokens or len(sample.arrivals)
        return sample


async def _events(http: httpx2.AsyncClient, body: dict[str, Any]) -> AsyncGenerator[Any, None]:
    async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        if not reply.is_success:
            raise refusal(reply.status_code, await reply.aread())
        async for line in reply.aiter_lines():
            event = event_of(line)
            if event is not None:
                yield event

"""A conversation with a server: what was said, what is attached to the next question, and the answer as it comes."""

from __future__ import annotations

import base64
import mimetypes
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from ..errors import InvalidRequestError
from .endpoint import Endpoint, delta_of, event_of, refusal

SOON = 0.05
"""Seconds: what comes within them after its first piece says nothing of speed."""
PATIENCE = httpx2.Timeout(600.0, connect=10.0)


@dataclass
class Answer:
    """What is known of an answer, when it is over.

    Attributes:
        text: Of it.
        finish_reason: As the server said; `stopped` where it was cut short here.
        prompt_tokens, tokens: As the server counted; None where it did not.
        first, last: Seconds until the first and the last piece of text.
        began: Characters of the first piece: it may hold several tokens.
    """

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    first: float | None = None
    last: float = 0.0
    began: int = 0

    def told(self) -> str:
        """How fast it came, in a line."""
        facts = []
        if self.tokens is not None:
            facts.append(f"{self.prompt_tokens} + {self.tokens} tokens")
        if self.first is not None:
            facts.append(f"first after {self.first * 1e3:.0f} ms")
            took = self.last - self.first
            if took >= SOON and self.tokens is not None:
                facts.append(f"then {self.tokens * (1 - self.began / len(self.text)) / took:.0f} tokens/s")
            elif 0 < took < SOON:
                facts.append(f"all after {self.last * 1e3:.0f} ms")
        if self.finish_reason not in (None, "stop"):
            facts.append("cut off: no room for more tokens" if self.finish_reason == "length" else self.finish_reason)
        return ", ".join(facts)


@dataclass
class Talk(AbstractContextManager["Talk"]):
    """See the module.

    Attributes:
        endpoint: Who answers.
        model: By which model; None: the server's first.
        system: What stands before all else.
        options: Of each request, such as `max_tokens`.
        messages: What was said, without the system's message.
        attached: Parts that go with the next question.
        answer: The last one, also while it comes.
    """

    endpoint: Endpoint
    model: str | None = None
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    attached: list[dict[str, Any]] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)

    def __post_init__(self) -> None:
        self.http = httpx2.Client(**self.endpoint.client_options(), timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def models(self) -> list[dict[str, Any]]:
        """What the server serves.

        Raises:
            ReplyError: It does not say.
        """
        try:
            reply = self.http.get("/v1/models")
        except httpx2.HTTPError as e:
            raise self.endpoint.unreachable(e) from e
        if not reply.is_success:
            raise refusal(reply.status_code, reply.content)
        found: list[dict[str, Any]] = reply.json()["data"]
        return found

    def reset(self) -> None:
        """Begin anew; the system's message stays."""
        self.messages, self.attached = [], []

    def attach(self, path: Path) -> None:
        """Have a picture or clip go with the next question.

        Raises:
            InvalidRequestError: It cannot be read, or is neither.
        """
        kind = (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]
        if kind not in ("image", "audio"):
            raise InvalidRequestError(f"{path.name} is neither a picture nor a clip, by its name", param="image")
        try:
            data = base64.b64encode(path.read_bytes()).decode()
        except OSError as e:
            raise InvalidRequestError(f"{path} cannot be read: {e.strerror}", param="image") from e
        if kind == "image":
            mime = mimetypes.guess_type(path.name)[0]
            self.attached.append({"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}})
        else:
            audio = {"data": data, "format": path.suffix.lstrip(".").lower()}
            self.attached.append({"type": "input_audio", "input_audio": audio})

    def ask(self, question: str) -> Generator[str, None, None]:
        """The pieces of the answer, as they come. Whoever stops reading has what came until then remembered.

        Raises:
            ReplyError: The server refused or failed it; the conversation is as it was, attachments too.
        """
        content: Any = [*self.attached, {"type": "text", "text": question}] if self.attached else question
        asked = [*self.messages, {"role": "user", "content": content}]
        self.answer = answer = Answer(finish_reason="stopped")
        start = time.monotonic()
        try:
            for event in self._events(asked):
                _note(answer, event)
                piece = delta_of(event)
                if not piece:
                    continue
                answer.last = time.monotonic() - start
                if answer.first is None:
                    answer.first, answer.began = answer.last, len(piece)
                answer.text += piece
                yield piece
        except httpx2.HTTPError as e:
            raise self.endpoint.unreachable(e) from e
        except (GeneratorExit, KeyboardInterrupt):
            if answer.text:
                self._remember(asked)
            raise
        self._remember(asked)

    def _remember(self, asked: list[dict[str, Any]]) -> None:
        self.messages = [*asked, {"role": "assistant", "content": self.answer.text}]
        self.attached = []

    def _events(self, asked: list[dict[str, Any]]) -> Iterator[Any]:
        before = [{"role": "system", "content": self.system}] if self.system else []
        body = {"messages": [*before, *asked], "stream": True, "stream_options": {"include_usage": True}}
        if self.model is not None:
            body["model"] = self.model
        with self.http.stream("POST", "/v1/chat/completions", json={**self.options, **body}) as reply:
            if not reply.is_success:
                raise refusal(reply.status_code, reply.read())
            for line in reply.iter_lines():
                event = event_of(line)
                if event is not None:
                    yield event


def _note(answer: Answer, event: Any) -> None:
    """What an event tells besides text."""
    usage = event.get("usage")
    if usage:
        answer.prompt_tokens, answer.tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    for choice in event.get("choices") or ():
        if choice.get("finish_reason"):
            answer.finish_reason = choice["finish_reason"]

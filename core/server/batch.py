"""A batch: the lines of a file go the way of a server's requests, through the same application, without a network between."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from ..errors import EngineError
from ..media.audio_limits import CLIP, AudioLimits
from ..media.door import fetch_media
from ..media.fetch import MediaFetcher
from ..media.source import is_remote, read_url
from . import logs
from .app import build_app
from .batch_file import SPEECH, Line, Records, WrongLine, count_lines, read_lines, record_of, record_of_wrong
from .client import EngineClient
from .errors import HttpError, problem_of
from .gate import Gate
from .loading import LoadingBars
from .models import Models
from .settings import ServerSettings
from .start import served_model

CONCURRENCY = 64
POLL_SECONDS = 0.2
_CLIP_FIELDS = ("file", "file_url")
"""Of a line about speech: where the clip is, as a URL."""


@dataclass
class Tally:
    """How a batch went.

    Attributes:
        answered, failed, skipped: Lines: with an answer, with an error, with a record of an earlier run.
        seconds: Since the models were loaded.
    """

    answered: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0


class Batch:
    """Sends lines into an application.

    Args:
        app: As `build_app` makes it.
        fetcher: Gets the clips that are not in their lines.
        concurrency: Lines at a time.
    """

    def __init__(self, app: Gate, fetcher: MediaFetcher, concurrency: int = CONCURRENCY) -> None:
        self.app, self.fetcher, self.concurrency = app, fetcher, concurrency
        self._alone = asyncio.Lock()

    async def run(
        self, lines: Iterator[Line | WrongLine], records: Records, on_done: Callable[[int], None] = lambda done: None
    ) -> Tally:
        """Do all lines that have no record yet, and write one for each; `on_done` is told how many are done."""
        tally, start = Tally(), time.monotonic()

        async def work(http: httpx2.AsyncClient) -> None:
            for line in lines:
                if records.written.has(line):
                    tally.skipped += 1
                else:
                    record = record_of_wrong(line) if isinstance(line, WrongLine) else await self._answered(http, line)
                    records.add(record)
                    good = record["error"] is None and record["response"]["status_code"] < 400
                    tally.answered += good
                    tally.failed += not good
                on_done(tally.answered + tally.failed + tally.skipped)

        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://batch", timeout=None) as http:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work(http))
        tally.seconds = time.monotonic() - start
        return tally

    async def _answered(self, http: httpx2.AsyncClient, line: Line) -> dict[str, Any]:
        """The record of a line."""
        try:
            request = await self._request(line)
        except EngineError as error:  # there is no clip, or it cannot be had
            problem = problem_of(error)
            return record_of(line, problem.status, "", problem.body)
        reply = await http.post(line.url, **request)
        if reply.status_code == 503:
            # An engine died, by the fault of this line or of another. Each is tried once more, one after the other, so that
            # few are in flight with the one at fault.
            async with self._alone:
                while (await http.get("/ready")).status_code != 200:
                    await asyncio.sleep(POLL_SECONDS)
                reply = await http.post(line.url, **request)
        is_json = reply.headers.get("content-type", "").startswith("application/json")
        body = reply.json() if is_json else {"text": reply.text}
        return record_of(line, reply.status_code, reply.headers.get("x-request-id", ""), body)

    async def _request(self, line: Line) -> dict[str, Any]:
        """What is posted: JSON, or a form with the clip."""
        if line.url not in SPEECH:
            return {"content": json.dumps(line.body), "headers": {"content-type": "application/json"}}
        urls = [line.body[name] for name in _CLIP_FIELDS if line.body.get(name) is not None]
        if len(urls) != 1 or not isinstance(urls[0], str):
            raise HttpError(400, "give the clip as file: a data: URI, or a URL", code="missing_parameter", param="file")
        try:
            json.dumps(line.body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise HttpError(400, "the body holds half a character", code="invalid_json") from None
        clip = await asyncio.to_thread(self._clip, urls[0])
        return {"files": {"file": ("clip", clip)}, "data": _fields(line.body)}

    def _clip(self, url: str) -> bytes:
        if is_remote(url):
            return fetch_media(self.fetcher, "audio", url)
        return read_url(url, CLIP, AudioLimits().file_bytes)


def _fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says beside the clip, as a form has it."""
    out: dict[str, Any] = {}
    for name, value in body.items():
        if name in _CLIP_FIELDS or value is None:
            continue
        if isinstance(value, list):
            out[f"{name}[]"] = [str(entry) for entry in value]
        else:
            out[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return out


def run_batch(
    model: str,
    source: Path,
    target: Path,
    settings: ServerSettings,
    options: Mapping[str, Any],
    *,
    resume: bool = False,
    concurrency: int = CONCURRENCY,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Tally:
    """Load a model and do a file of requests with it.

    Args:
        model: As `core.LLM` takes it; requests call it so, or by the name that `settings` gives it, or not at all.
        source, target: The files of requests and of records.
        settings, options: The server's and the engine's.
        resume: Do what an earlier run has not.
        concurrency: Requests at a time.
        on_done: Told after each line how many are done, of how many.

    Raises:
        StartupError: The model cannot be loaded as asked, or a file cannot be used.
        EngineDeadError: The engine ended for good; what was done until then is in the file.
    """
    logs.set_up(settings)
    (name,) = settings.served_model_names or (model,)
    total = count_lines(source)
    with Records(target, resume=resume) as records:

        async def work() -> Tally:
            with LoadingBars() as bars:
                client = await EngineClient.create(
                    model, engine_restarts=settings.engine_restarts, on_progress=bars.of(name), **options
                )
            async with client:
                app = build_app(Models({name: served_model(name, client)}), settings)
                fetcher = MediaFetcher(settings.allowed_media_hosts, settings.allowed_media_networks)
                lines = read_lines(source)
                batch = Batch(app, fetcher, concurrency)
                done = asyncio.create_task(batch.run(lines, records, lambda done: on_done(done, total)))
                ended = asyncio.create_task(client.ended())
                try:
                    await asyncio.wait({done, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not done.done():
                        raise ended.result() or client.engine.stopped()
                    return done.result()
                finally:
                    done.cancel()
                    ended.cancel()
                    await asyncio.gather(done, ended, return_exceptions=True)

        return asyncio.run(work())

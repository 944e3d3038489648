"""The server's life: it listens, serves, and ends as it is told to.

The first SIGTERM or Ctrl-C drains: new requests are refused, those in flight end, then the server does. A second one ends it at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from ..errors import InvalidConfigError
from .connection import Connection
from .gate import MAX_HEADERS, Gate
from .metrics import Metrics
from .settings import ServerSettings

logger = logging.getLogger(__name__)
HEADER_BYTES = 64 * 1024
KEEP_OPEN = 75
"""Seconds that a connection without requests is kept: longer than proxies do, so that they are the ones who close."""
FORCED = 128 + signal.SIGTERM


class HttpServer(uvicorn.Server):
    """uvicorn, whose signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class Host:
    """Runs an application on a socket.

    Args:
        app: The application.
        settings: Where to listen, and for how long to drain.
        listener: From `listen`.
    """

    def __init__(self, app: Gate, settings: ServerSettings, listener: socket.socket) -> None:
        self.app, self.settings, self.listener = app, settings, listener
        self.forced = False
        config = uvicorn.Config(
            app,
            http=_protocol(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_keep_alive=KEEP_OPEN,
            timeout_graceful_shutdown=1,
        )
        self.server = HttpServer(config)
        self._stopping: asyncio.Task[None] | None = None

    async def run(self, lost: asyncio.Task[Any]) -> int:
        """Serve until a signal, or until there is nothing left to serve with; the exit code.

        Args:
            lost: Done when an engine has ended for good.
        """
        lost.add_done_callback(lambda task: None if task.cancelled() else self._end())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        lag = asyncio.create_task(watch_loop(self.app.metrics))
        try:
            await self.server.serve(sockets=[self.listener])
        finally:
            lag.cancel()
        return FORCED if self.forced else 0

    def stop(self) -> None:
        """Drain and end; the second time, end."""
        if self._stopping is None:
            logger.info("ending: requests in flight have %g s", self.settings.drain_timeout)
            self._stopping = asyncio.create_task(self._drain())
        else:
            self.forced = True
            self._end()

    def _end(self) -> None:
        self.app.draining = True
        self.server.force_exit = self.server.should_exit = True

    async def _drain(self) -> None:
        if not await self.app.drained(self.settings.drain_timeout):
            logger.warning("%d requests did not end in time and are cut off", self.app.in_flight)
        self.server.should_exit = True


def listen(settings: ServerSettings) -> socket.socket:
    """A socket at the host and port.

    Raises:
        InvalidConfigError: They cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((settings.host, settings.port))
    except OSError as e:
        made.close()
        raise InvalidConfigError(
            f"cannot listen at {settings.host}:{settings.port}: {e.strerror or e}; choose another with --host and --port",
            param="--port",
        ) from e
    made.setblocking(False)
    return made


async def watch_loop(metrics: Metrics, every: float = 0.5) -> None:
    """Measure how late the event loop is, and say so where it is more than a second."""
    while True:
        due = time.monotonic() + every
        await asyncio.sleep(every)
        lag = max(0.0, time.monotonic() - due)
        metrics.loop_lag.set(lag)
        if lag > 1:
            logger.warning("the event loop stood still for %.1f s", lag)


def _protocol(settings: ServerSettings) -> type[Any]:
    return type("BoundConnection", (Connection,), {"idle_timeout": settings.idle_timeout, "max_headers": MAX_HEADERS})

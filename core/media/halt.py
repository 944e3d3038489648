"""Ends a fetch from outside of its thread, also one that waits for its host's next byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Halt:
    """Belongs to one fetch. What it ends fails as if its host had broken off.

    Attributes:
        is_set: Whether the fetch should end.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def set(self) -> None:
        """End it. May be called from any thread, and again."""
        with self._lock:
            self.is_set = True
            self._shut()

    @contextlib.contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Within, the fetch ends after so many seconds."""
        timer = threading.Timer(seconds, self.set)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
        """Around one request of the fetch: to be told by the client library what it does."""
        try:
            yield self._trace
        finally:
            with self._lock:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event != "connection.connect_tcp.complete":
            return
        with self._lock:
            # A descriptor of our own, of the same connection: TLS takes the first one over, and its owner may close it.
            self._socket = info["return_value"].get_extra_info("socket").dup()
            if self.is_set:
                self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # its host was faster
                self._socket.shutdown(socket.SHUT_RDWR)

"""A host of media that does as badly as its paths say."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from .conftest import png, wav

SLOW_SECONDS = 60.0
"""More than anybody waits."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Host", "")))  # type: ignore[attr-defined]
        name, _, rest = self.path.removeprefix("/").partition("/")
        getattr(self, f"_{name}", self._missing)(rest)

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _picture(self, seed: str) -> None:
        self._send(png(int(seed or 0)))

    def _clip(self, _: str) -> None:
        self._send(wav())

    def _status(self, status: str) -> None:
        self._send(b"no", int(status))

    def _to(self, target: str) -> None:
        self._send(b"", 302, Location=target)

    def _round(self, _: str) -> None:
        self._send(b"", 302, Location="/round/")

    def _packed(self, _: str) -> None:
        self._send(gzip.compress(bytes(2**20)), Content_Encoding="gzip")

    def _endless(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(2**20))
        except OSError:
            self.close_connection = True

    def _lying(self, _: str) -> None:
        self._send(b"short", Content_Length="5000")
        self.close_connection = True

    def _slow(self, _: str) -> None:
        self.server.hurry.wait(SLOW_SECONDS)  # type: ignore[attr-defined]
        self._send(png())

    def _trickle(self, part: str) -> None:
        """A byte now and then for as long as somebody reads: of the body, or of the `headers`."""
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X-Long: " if part == "headers" else b"\r\n"))
            while True:
                self.wfile.write(b"x")
                time.sleep(0.01)
        except OSError:
            self.server.left.append(self.path)  # type: ignore[attr-defined]
            self.close_connection = True

    def _missing(self, _: str) -> None:
        self._send(b"not here", 404)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class MediaHost:
    """Serves while it is entered.

    Attributes:
        port: Where.
        seen: (path, Host header) of every request.
        left: Paths whose reader has left while they trickled.
        hurry: Set: what is slow is not so any more.
    """

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.seen: list[tuple[str, str]] = []
        self._server.seen = self.seen  # type: ignore[attr-defined]
        self.left = self._server.left = list[str]()  # type: ignore[attr-defined]
        self.hurry = self._server.hurry = threading.Event()  # type: ignore[attr-defined]
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Its address by a name."""
        return f"http://localhost:{self.port}"

    def __enter__(self) -> MediaHost:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hurry.set()
        self._server.shutdown()
        self._server.server_close()

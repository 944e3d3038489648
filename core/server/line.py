"""One end of the line between a server and its engine process: a socket in the file system, where only its owner may go."""

from __future__ import annotations

from typing import Any

import zmq

from .wire import Codec


class LineClosedError(Exception):
    """There is nobody at the other end."""


class Line:
    """Sends and receives messages. Used by one thread.

    Args:
        reads: The messages that come in.
    """

    def __init__(self, reads: Any) -> None:
        self._context = zmq.Context()
        self.socket, self._codec = self._context.socket(zmq.PAIR), Codec(reads)
        # Nothing is dropped, and nobody waits: what may be under way is bounded by the requests that are taken.
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)

    @classmethod
    def bind(cls, address: str, reads: Any) -> Line:
        """The server's end."""
        line = cls(reads)
        line.socket.bind(address)
        return line

    @classmethod
    def connect(cls, address: str, reads: Any) -> Line:
        """The engine's end."""
        line = cls(reads)
        line.socket.connect(address)
        return line

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            TypeError, OverflowError: It holds what cannot be written.
            LineClosedError: There is nobody at the other end.
        """
        frames = self._codec.encode(message)
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK, copy=len(frames) == 1)
        except zmq.Again:
            raise LineClosedError("nobody is at the other end") from None

    def receive(self, timeout: float | None) -> Any:
        """The next message; None when there is none within `timeout` seconds (None: however long it takes).

        Raises:
            msgspec.ValidationError: What came is no message.
        """
        if timeout != 0 and not self.socket.poll(None if timeout is None else int(timeout * 1000) + 1):
            return None
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return self._codec.decode([frame.buffer for frame in frames])

    def close(self, *, patience: float = 0.0) -> None:
        """Hang up; what was sent and has not gone yet is given so many seconds."""
        self.socket.close(linger=int(patience * 1000))
        self._context.term()


__all__ = ["Line", "LineClosedError"]

"""A bell that any thread may ring, heard by a thread that waits for sockets."""

from __future__ import annotations

import contextlib
import os


class Bell:
    """Something to poll: readable from when it is rung until it is silenced."""

    def __init__(self) -> None:
        self._ear, self._rope = os.pipe()
        for end in (self._ear, self._rope):
            os.set_blocking(end, False)

    def fileno(self) -> int:
        """What to poll."""
        return self._ear

    def ring(self) -> None:
        """Wake who waits. One ring is as good as many."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rope, b"!")

    def silence(self) -> None:
        """Forget that it was rung: to be done before looking at what it was rung for."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._ear, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._ear)
        os.close(self._rope)

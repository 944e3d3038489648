"""What of a clip's text has been shown while its pieces are written side by side."""

from __future__ import annotations

from ..outputs import CompletionOutput
from .clip import ClipTask
from .joiner import TextJoiner
from .result import Transcription


class Shown:
    """Pieces in order, each when it is certain to stay."""

    def __init__(self, clip: ClipTask) -> None:
        self.clip, self.joiner = clip, TextJoiner()
        self._at = 0
        self._waiting: dict[int, str] = {}
        self._ended: set[int] = set()

    def add(self, piece: int, text: str, ended: CompletionOutput | None, temperature: float) -> str:
        """More of a piece's text; returns what can be shown now."""
        if self.clip.shows_tokens:
            self._waiting[piece] = self._waiting.get(piece, "") + text
        if ended is not None and self.clip.settle(piece, ended, temperature):
            self._ended.add(piece)
            if not self.clip.shows_tokens:
                self._waiting[piece] = self.clip.visible_text(piece)
        out = ""
        while True:
            out += self.joiner.add(self._waiting.pop(self._at, ""))
            if self._at not in self._ended:
                return out
            self._at += 1
            self.joiner.next_piece()

    def rest(self, whole: Transcription) -> str:
        """What has not been shown of the whole."""
        return whole.text.removeprefix(self.joiner.text)


__all__ = ["Shown"]

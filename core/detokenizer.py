"""Token ids → text as they come, never splitting a character; stop strings found over the edges of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_UNFINISHED = "�"


class Detokenizer:
    """The text of one completion, as it grows.

    A token may end in the middle of a character, and what a token looks like may depend on the one before; so text is decoded
    with a few tokens of context and held back while it ends in the replacement character.

    Args:
        tokenizer: The HF tokenizer.
        stops: Stop strings.
        keep_stop: Leave the stop string in the text.
        skip_special_tokens: Leave special tokens out.
    """

    def __init__(
        self, tokenizer: Any, stops: Sequence[str] = (), *, keep_stop: bool = False, skip_special_tokens: bool = True
    ) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self.keep_stop, self.skip_special_tokens = keep_stop, skip_special_tokens
        self.text = ""
        self.stopped_by: str | None = None
        self.ids: list[int] = []
        self._context, self._done, self._sent = 0, 0, 0

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=self.skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def append(self, ids: Sequence[int]) -> str | None:
        """Add tokens; returns the stop string that they complete, if any, with the text cut there."""
        before = self._decode(self.ids[self._context : self._done])
        with_new = self._decode([*self.ids[self._context :], *ids])
        if len(ids) > 1 and _UNFINISHED in with_new:
            # Tokenizers that spell in bytes give up a whole run of them for one that is wrong: text must not depend on chunks.
            return self.append_one_by_one(ids)
        self.ids += ids
        if with_new.endswith(_UNFINISHED) or len(with_new) <= len(before):
            return None
        return self._extend(with_new[len(before) :])

    def append_one_by_one(self, ids: Sequence[int]) -> str | None:
        """As `append`, a token at a time, so that the first stop string wins wherever chunks end."""
        for token in ids:
            if self.append([token]) is not None:
                break
        return self.stopped_by

    def _extend(self, new: str) -> str | None:
        start = len(self.text)
        self.text += new
        self._context, self._done = self._done, len(self.ids)
        hits = []
        for stop in self.stops:
            at = self.text.find(stop, max(0, start - len(stop) + 1))
            if at >= 0:
                hits.append((at, stop))
        if hits:
            at, self.stopped_by = min(hits)
            self.text = self.text[: at + (len(self.stopped_by) if self.keep_stop else 0)]
        return self.stopped_by

    def finish(self) -> str | None:
        """No more tokens come: let out what was held back, as it is."""
        if self.stopped_by is None and self._done < len(self.ids):
            before = self._decode(self.ids[self._context : self._done])
            rest = self._decode(self.ids[self._context :])[len(before) :]
            if rest:
                self._extend(rest)
        return self.stopped_by

    def delta(self, *, finished: bool) -> str:
        """Text that was not handed out before; while more may come, not what could be the start of a stop string."""
        end = len(self.text)
        if not finished and self.stops:
            end = max(self._sent, end - max(map(len, self.stops)) + 1)
        out, self._sent = self.text[self._sent : end], end
        return out

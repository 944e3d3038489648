"""Token ids → text as they come, never splitting a character; stop strings found over the edges of chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_UNFINISHED = "�"


def _decoder(tokenizer: Any) -> Callable[..., str]:
    """A tokenizer's `decode`, without the look at every id that it takes to learn that they are a list of ints."""
    if getattr(type(tokenizer), "decode", None) is PreTrainedTokenizerBase.decode:
        return tokenizer._decode  # type: ignore[no-any-return]
    return tokenizer.decode  # type: ignore[no-any-return]


def whole_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of any number of tokens, special ones too."""
    decode = _decoder(tokenizer)
    if getattr(decode, "__func__", None) is PreTrainedTokenizerFast._decode:
        # The very same, but that other threads run meanwhile: they do while a batch is decoded, not while one sequence is.
        return str(tokenizer.backend_tokenizer.decode_batch([ids], skip_special_tokens=False)[0])
    return decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class Detokenizer:
    """The text of one completion, as it grows.

    A token may end in the middle of a character, and what a token looks like may depend on the one before; so text is decoded
    with a few tokens of context and held back while it ends in the replacement character.

    Args:
        tokenizer: The HF tokenizer.
        stops: Stop strings.
        keep_stop: Leave the stop string in the text.
        skip_special_tokens: Leave special tokens out.
        min_tokens: No stop string counts that is complete before so many tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        stops: Sequence[str] = (),
        *,
        keep_stop: bool = False,
        skip_special_tokens: bool = True,
        min_tokens: int = 0,
    ) -> None:
        self._ids_to_text, self.stops, self.min_tokens = _decoder(tokenizer), tuple(stops), min_tokens
        self.keep_stop, self.skip_special_tokens = keep_stop, skip_special_tokens
        self.text = ""
        self.stopped_by: str | None = None
        self.ids: list[int] = []
        self._context, self._done, self._sent = 0, 0, 0

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._ids_to_text(
            ids, skip_special_tokens=self.skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def append(self, ids: Sequence[int]) -> str | None:
        """Add tokens; returns the stop string that they complete, if any, with the text cut there."""
        new = self._text_of([*self.ids[self._context :], *ids])
        if len(ids) > 1 and _UNFINISHED in new:
            return self.append_one_by_one(ids)  # what a broken character does must not depend on how chunks fall
        self.ids += ids
        return None if not new or new.endswith(_UNFINISHED) else self._extend(new)

    def _text_of(self, window: Sequence[int]) -> str:
        """What tokens from the context on add to the text."""
        known = self._done - self._context
        before, with_new = self._decode(window[:known]), self._decode(window)
        if with_new.startswith(before):
            return with_new[len(before) :]
        # A tokenizer that spells in bytes gives up a whole run of them for one that is wrong: those before it are out already.
        return self._decode(window[known:])

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
        for stop in self.stops if len(self.ids) >= self.min_tokens else ():
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
            rest = self._text_of(self.ids[self._context :])
            if rest:
                self._extend(rest)
        return self.stopped_by

    def settled(self, *, finished: bool) -> str:
        """The text but for its end that what is to come may take back: while more may come, what could be the start of a
        stop string."""
        if finished or not self.stops:
            return self.text
        return self.text[: max(self._sent, len(self.text) - max(map(len, self.stops)) + 1)]

    def delta(self, *, finished: bool) -> str:
        """Settled text that was not handed out before."""
        settled = self.settled(finished=finished)
        out, self._sent = settled[self._sent :], len(settled)
        return out


class NoText(Detokenizer):
    """Keeps the tokens of a completion and makes no text of them."""

    def append(self, ids: Sequence[int]) -> str | None:
        """Add tokens."""
        self.ids += ids
        return None

    def finish(self) -> str | None:
        """No more tokens come."""
        return None

"""What Whisper may say next: no token that stands for no speech, and time stamps in pairs that never go back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Suppressed:
    """Forbids tokens; called with one sequence's output so far and its logits `(vocab,)`, which it changes.

    Attributes:
        always: Never allowed.
        first: Not allowed as the first.
    """

    always: Sequence[int] = ()
    first: Sequence[int] = ()

    def __call__(self, output_ids: list[int], logits: Tensor) -> Tensor:
        logits[list(self.always)] = -torch.inf
        if not output_ids:
            logits[list(self.first)] = -torch.inf
        return logits


@dataclass(frozen=True)
class TimestampRules:
    """The grammar of time stamps (Radford et al. 2022, section 4.5): a stamp, text, a stamp, the next piece's stamp, text, …

    Attributes:
        no_timestamps: The token that switches them off.
        end: The token that ends the text; text lies below it.
        begin: The stamp of 0 s; the others follow it.
        most_at_first: The latest first stamp, counted from `begin`; None: any.
    """

    no_timestamps: int
    end: int
    begin: int
    most_at_first: int | None = None

    def __call__(self, output_ids: list[int], logits: Tensor) -> Tensor:
        text, stamps = logits[: self.begin], logits[self.begin :]
        text[self.no_timestamps] = -torch.inf
        if not output_ids:
            text[:] = -torch.inf
            if self.most_at_first is not None:
                stamps[self.most_at_first + 1 :] = -torch.inf
            return logits
        opens = output_ids[-1] >= self.begin
        if opens and (len(output_ids) == 1 or output_ids[-2] >= self.begin):
            stamps[:] = -torch.inf  # a piece of text has begun
        elif opens:
            text[: self.end] = -torch.inf  # one has ended: the next begins, or all is said
        latest = next((token for token in reversed(output_ids) if token >= self.begin), None)
        if latest is not None:
            closed = opens and len(output_ids) > 1 and output_ids[-2] < self.begin
            stamps[: latest - self.begin + (0 if closed else 1)] = -torch.inf  # a piece of text takes some time
        if stamps.logsumexp(dim=-1) > text.max():
            text[:] = -torch.inf  # a stamp is likelier than any one token of text, whichever stamp it is
        return logits


__all__ = ["Suppressed", "TimestampRules"]

"""What one request asks of its logits, checked against the model; and one sequence's state, which its token ids determine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequestError
from ..grammar.compiler import GrammarCompiler
from ..grammar.cursor import Grammar, GrammarCursor
from ..sampling import SamplingParams
from .bad_words import BadWords, sequences_of
from .penalties import TokenCounts

if TYPE_CHECKING:
    from ..request import Request

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogitsRules:
    """A request's wishes in numbers. All of its sequences share them.

    Attributes:
        params: Where the plain numbers are.
        vocab_size: Of the model.
        biased, bias: Ids, and what is added to their logits.
        allowed: The only ids that may come; None: all.
        bad_words: What must not be completed.
        ends: Ids that end a text, and may not come before `params.min_tokens`.
        grammar: What the text is held to.
    """

    params: SamplingParams
    vocab_size: int
    biased: Ids
    bias: NDArray[np.float32]
    allowed: Ids | None
    bad_words: BadWords | None
    ends: Ids
    grammar: Grammar | None


class LogitsState:
    """One sequence's state. It catches up with the token ids whenever it is used, so it may be made anew at any time.

    Args:
        rules: The request's.
        prompt: Ids of the prompt.
    """

    def __init__(self, rules: LogitsRules, prompt: Sequence[int]) -> None:
        params = rules.params
        self.rules = rules
        self.counts: TokenCounts | None = None
        if params.repetition_penalty != 1.0:
            self.counts = TokenCounts(prompt, len(prompt), rules.vocab_size)
        elif params.presence_penalty or params.frequency_penalty:
            self.counts = TokenCounts((), len(prompt), rules.vocab_size)
        self.cursor = GrammarCursor(rules.grammar) if rules.grammar is not None else None

    def forbidden(self, request: Request) -> Ids:
        """Tokens that may not come next, but for what `allowed` and the grammar say."""
        rules = self.rules
        early = request.output_len < rules.params.min_tokens
        words = rules.bad_words.banned(request.token_ids, request.prompt_len) if rules.bad_words is not None else _NONE
        return np.concatenate((rules.ends, words)) if early else words


_NONE: Ids = np.zeros(0, dtype=np.int64)


class RuleMaker:
    """Makes the rules of one engine's requests.

    Args:
        tokenizer: The HF tokenizer.
        vocab_size: Of the model.
        eos_token_ids: The model's end tokens.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, eos_token_ids: Collection[int]) -> None:
        self.tokenizer, self.vocab_size, self.eos_token_ids = tokenizer, vocab_size, eos_token_ids
        self.grammars = GrammarCompiler(tokenizer, vocab_size, eos_token_ids)

    def make(self, params: SamplingParams) -> LogitsRules | None:
        """The rules of a request; None when there are none. May take seconds: a grammar is compiled here.

        Raises:
            InvalidRequestError: A token id is not the model's.
            GrammarError: The grammar is refused.
        """
        check_token_ids(params, self.vocab_size)
        if not params.shapes_logits:
            return None
        ends = {*params.stop_token_ids, *(() if params.ignore_eos else self.eos_token_ids)}
        structured, biases = params.structured_outputs, params.logit_bias or {}
        return LogitsRules(
            params=params,
            vocab_size=self.vocab_size,
            biased=_ids(biases),
            bias=np.array(list(biases.values()), dtype=np.float32),
            allowed=_ids(sorted(set(params.allowed_token_ids))) if params.allowed_token_ids is not None else None,
            bad_words=self._bad_words(params),
            ends=_ids(sorted(t for t in ends if t < self.vocab_size)),
            grammar=self.grammars.compile(structured.source) if structured is not None else None,
        )

    def _bad_words(self, params: SamplingParams) -> BadWords | None:
        if not params.bad_words:
            return None
        found = sequences_of(params.bad_words, self.tokenizer)
        return BadWords(ids for ids in found if max(ids) < self.vocab_size)

    def close(self) -> None:
        """End what compiles grammars."""
        self.grammars.close()


def check_token_ids(params: SamplingParams, vocab_size: int) -> None:
    """Refuse token ids that the model does not have."""
    for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
        for token in getattr(params, name) or ():
            if token >= vocab_size:
                raise InvalidRequestError(
                    f"{name}: {token} is no token of this model, whose ids go from 0 to {vocab_size - 1}",
                    code="invalid_token",
                    param=f"sampling_params.{name}",
                )


def _ids(ids: Iterable[int]) -> Ids:
    return np.array(list(ids), dtype=np.int64)

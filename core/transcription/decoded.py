"""One piece of a clip after the model has written its text: how good it is, and whether to try again."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from sdk.speech import DecodingFallback, SpeechOutput

from ..outputs import CompletionOutput


@dataclass(frozen=True)
class Decoded:
    """What the model wrote for a piece of a clip.

    Attributes:
        output: As the plugin's hooks see it.
        temperature: That it was drawn at.
        compression_ratio: Bytes of the text to those that zlib needs: high where it repeats itself.
        no_speech_prob: Probability that nobody speaks; 0 where the model does not say.
    """

    output: SpeechOutput
    temperature: float
    compression_ratio: float
    no_speech_prob: float

    def is_silence(self, rule: DecodingFallback | None) -> bool:
        """Whether nobody speaks there, so that the text is none."""
        if rule is None or rule.no_speech is None or self.no_speech_prob <= rule.no_speech:
            return False
        return rule.avg_logprob is None or self.output.avg_logprob < rule.avg_logprob

    def is_doubtful(self, rule: DecodingFallback | None) -> bool:
        """Whether it repeats itself or was guessed, and a higher temperature may do better."""
        if rule is None or self.is_silence(rule):
            return False
        repeats = rule.compression_ratio is not None and self.compression_ratio > rule.compression_ratio
        return repeats or (rule.avg_logprob is not None and self.output.avg_logprob < rule.avg_logprob)


def decoded(made: CompletionOutput, end_ids: frozenset[int], temperature: float, no_speech_prob: float) -> Decoded:
    """Look at a completion.

    Args:
        made: With its log-probabilities.
        end_ids: The model's end tokens, which count for the mean and are not part of the text.
        temperature: That it was drawn at.
        no_speech_prob: As the model said before.
    """
    ids = list(made.token_ids)
    mean = (made.cumulative_logprob or 0.0) / max(1, len(ids))
    while ids and ids[-1] in end_ids:
        ids.pop()
    output = SpeechOutput(made.text, ids, made.finish_reason, mean if math.isfinite(mean) else 0.0)
    return Decoded(output, temperature, compression_ratio(made.text), no_speech_prob)


def compression_ratio(text: str) -> float:
    """Bytes of a text to those that zlib makes of it; 1 of no text."""
    data = text.strip().encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data)) if data else 1.0

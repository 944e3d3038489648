"""Word error rates of a checkpoint that `train.py` wrote, on utterances and on voices that it has not heard.

usage: python evaluate.py DIR [--count 200]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
from speech import RATE, UNSEEN, Utterance, learnt_voice, put_together, some_words, speak

from core import LLM


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to change, to add or to take out (Levenshtein's distance)."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def utterances(count: int, voices: Sequence[str], seed: int) -> list[Utterance]:
    """New ones; each in one voice. No voices: those that were learnt from."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        voice = voices[i % len(voices)] if voices else learnt_voice(rng)
        made.append(put_together([speak(some_words(rng), voice, rng) for _ in range(rng.choice((1, 2, 3)))], rng))
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    with LLM(arguments.folder, dtype="float32") as llm:
        for name, voices in (("unseen utterances", ()), ("unseen voices", UNSEEN)):
            spoken = utterances(arguments.count, voices, seed=1_000_003)
            wrong, total = words_wrong(llm, spoken), sum(len(u.words) for u in spoken)
            print(f"{name}: {wrong} of {total} words wrong, {wrong / total:.1%}; {stamps(llm, spoken)}")
        for phrases, pause in ((2, 0.35), (2, 0.55), (2, 1.1), (9, 0.35), (9, 0.55), (9, 1.1)):
            spoken = apart(arguments.count // phrases, phrases, pause, seed=1_000_005)
            total = sum(len(u.words) for u in spoken)
            alone, timed = words_wrong(llm, spoken), words_wrong(llm, spoken, "segment")
            shares = f"{alone / total:.1%} wrong, with times {timed / total:.1%}"
            print(f"{phrases} phrases, pauses of {pause} s: of {total} words {shares}")


def apart(count: int, phrases: int, pause: float, seed: int) -> list[Utterance]:
    """Clips of any length: phrases in voices that were learnt, with pauses of one length before, between and after them."""
    rng = random.Random(seed)
    quiet = np.zeros(round(pause * RATE), np.float32)
    made = []
    for _ in range(count):
        said = [speak(some_words(rng), learnt_voice(rng), rng) for _ in range(phrases)]
        wave = np.concatenate([quiet, *(part for phrase in said for part in (phrase.wave * np.float32(0.7), quiet))])
        made.append(Utterance(wave, tuple((0.0, 0.0, phrase.words) for phrase in said)))
    return made


def words_wrong(llm: LLM, spoken: Sequence[Utterance], timestamps: Literal["segment"] | None = None) -> int:
    """How many words are not heard as they were said."""
    clips = [(u.wave, RATE) for u in spoken]
    heard = llm.transcribe(clips, language="en", timestamps=timestamps, use_progress=False)
    return sum(errors(u.words, h.text.split()) for u, h in zip(spoken, heard))


def stamps(llm: LLM, spoken: Sequence[Utterance]) -> str:
    """How far off the time stamps are where there are as many segments as phrases."""
    heard = llm.transcribe([(u.wave, RATE) for u in spoken], language="en", timestamps="segment", use_progress=False)
    right = [(u, h) for u, h in zip(spoken, heard) if len(u.parts) == len(h.segments)]
    pairs = [(part, segment) for u, h in right for part, segment in zip(u.parts, h.segments)]
    off = [abs(a - b) for part, segment in pairs for a, b in zip(part, (segment.start, segment.end))]
    return f"{len(right)} of {len(spoken)} with as many segments as phrases, their ends {np.median(off):.2f} s off"


if __name__ == "__main__":
    main()

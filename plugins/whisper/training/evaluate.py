"""Word error rates of a checkpoint that `train.py` wrote, on utterances and on voices that it has not heard.

usage: python evaluate.py DIR [--count 200]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

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
            heard = llm.transcribe([(u.wave, RATE) for u in spoken], language="en", use_progress=False)
            wrong = sum(errors(u.words, h.text.split()) for u, h in zip(spoken, heard))
            total = sum(len(u.words) for u in spoken)
            print(f"{name}: {wrong} of {total} words wrong, {wrong / total:.1%}; {stamps(llm, spoken)}")


def stamps(llm: LLM, spoken: Sequence[Utterance]) -> str:
    """How far off the time stamps are where there are as many segments as phrases."""
    heard = llm.transcribe([(u.wave, RATE) for u in spoken], language="en", timestamps="segment", use_progress=False)
    right = [(u, h) for u, h in zip(spoken, heard) if len(u.parts) == len(h.segments)]
    pairs = [(part, segment) for u, h in right for part, segment in zip(u.parts, h.segments)]
    off = [abs(a - b) for part, segment in pairs for a, b in zip(part, (segment.start, segment.end))]
    return f"{len(right)} of {len(spoken)} with as many segments as phrases, their ends {np.median(off):.2f} s off"


if __name__ == "__main__":
    main()

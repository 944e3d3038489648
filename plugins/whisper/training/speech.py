"""Speech to learn from: phrases of a small vocabulary, spoken by espeak-ng in many voices, put together with pauses and noise."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE = 16_000
SECONDS = 5
Wave = NDArray[np.float32]
NOISE_DB = (10.0, 50.0)
"""How far below the voice white noise lies, where there is some."""

NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "twenty",
    "thirty",
    "hundred",
]
COLOURS = ["red", "green", "blue", "yellow", "black", "white", "brown", "orange"]
THINGS = ["circle", "square", "triangle", "fox", "dog", "house", "river", "garden"]
ORDERS = ["stop", "go", "left", "right", "open", "close", "up", "down", "yes", "no"]
WORDS = [*NUMBERS, *COLOURS, *THINGS, *ORDERS]

ACCENTS = ("en-us", "en-gb", "en-gb-x-rp")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m7", "f1", "f2", "f3", "f4")
OTHER_ACCENTS = (*ACCENTS, "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
OTHER_VARIANTS = (
    *("Alex", "Andy", "Annie", "Denis", "Gene", "Hugo", "Lee", "Marco", "Mario", "Mike", "adam", "anika", "belinda"),
    *("benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "gustave", "iven", "john", "klatt2"),
    *("klatt4", "linda", "max", "michael", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro"),
    *("shelby", "steph", "travis", "victor"),
)
"""Stranger ones, learnt from as well so that voices which nobody has heard are understood."""
UNSEEN = ("en-gb-scotland+m6", "en-gb-scotland+f5", "en-us+m8", "en-us+f5", "en-gb-x-rp+m6", "en-gb+f5")
"""Voices that nobody learns from: an accent, and variants of voices, that are kept for the test."""


@dataclass(frozen=True)
class Phrase:
    """A few words without a pause.

    Attributes:
        words: That are said.
        wave: `(samples,)` at `RATE`, without silence at its ends.
    """

    words: tuple[str, ...]
    wave: Wave


@dataclass(frozen=True)
class Utterance:
    """A clip: phrases with pauses between them.

    Attributes:
        wave: `(samples,)` at `RATE`.
        parts: Start and end in seconds, and the words, of each phrase.
    """

    wave: Wave
    parts: tuple[tuple[float, float, tuple[str, ...]], ...]

    @property
    def words(self) -> list[str]:
        """All that is said."""
        return [word for _, _, words in self.parts for word in words]


def speak(words: Sequence[str], voice: str, rng: Random, stretch: float = 1.0) -> Phrase:
    """Have espeak-ng say it, as fast and as high as chance will have it.

    Args:
        words: What to say.
        voice: Of espeak-ng, as `accent+variant`.
        rng: Chooses speed and pitch.
        stretch: Plays the recording so much slower or faster, which also moves the formants: a throat of another length.
    """
    command = ["espeak-ng", "-v", voice, "-s", str(rng.randint(120, 200)), "-p", str(rng.randint(25, 75)), "--stdout"]
    said = subprocess.run([*command, " ".join(words)], check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    wave, rate = soundfile.read(io.BytesIO(said), dtype="float32")
    wave = soxr.resample(wave, rate * stretch, RATE)
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    return Phrase(tuple(words), np.asarray(wave[loud[0] : loud[-1] + 1], dtype=np.float32))


def some_words(rng: Random) -> list[str]:
    """One word to four."""
    return rng.choices(WORDS, k=rng.choice((1, 2, 2, 3, 3, 4)))


def learnt_voice(rng: Random) -> str:
    """A voice to learn from."""
    return f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"


def other_voice(rng: Random) -> str:
    """A stranger voice to learn from."""
    return f"{rng.choice(OTHER_ACCENTS)}+{rng.choice(OTHER_VARIANTS)}"


def put_together(phrases: Sequence[Phrase], rng: Random) -> Utterance:
    """Phrases one after the other, as many as fit, with pauses; louder or softer, and with noise."""
    noise = np.random.default_rng(rng.getrandbits(32))
    pieces: list[Wave] = []
    parts: list[tuple[float, float, tuple[str, ...]]] = []
    length = 0
    for phrase in phrases:
        pause = round(rng.uniform(0.05, 0.6) * RATE)
        if length + pause + len(phrase.wave) > SECONDS * RATE:
            break
        pieces += [np.zeros(pause, np.float32), phrase.wave * np.float32(rng.uniform(0.6, 1.0))]
        start = length + pause
        length = start + len(phrase.wave)
        parts.append((start / RATE, length / RATE, phrase.words))
    rest = rng.uniform(0.0, max(0.0, SECONDS - length / RATE)) if rng.random() < 0.7 else 0.1
    pieces.append(np.zeros(min(round(rest * RATE), SECONDS * RATE - length), np.float32))
    wave = np.concatenate(pieces) * np.float32(rng.uniform(0.2, 1.0))
    if rng.random() < 0.6:
        spoken = np.concatenate([phrase.wave for phrase in phrases]).std() * wave.std() / np.concatenate(pieces).std()
        level = np.float32(spoken * 10 ** (-rng.uniform(*NOISE_DB) / 20))
        wave = wave + noise.standard_normal(len(wave)).astype(np.float32) * level
    return Utterance(wave.astype(np.float32), tuple(parts))


def silence(rng: Random) -> Utterance:
    """Nobody speaks."""
    noise = np.random.default_rng(rng.getrandbits(32))
    count = round(rng.uniform(0.5, SECONDS) * RATE)
    return Utterance(noise.standard_normal(count).astype(np.float32) * np.float32(10 ** rng.uniform(-5, -1)), ())

"""The clips that ship with the demo: phrases with pauses between them, longer than the model hears at once.

usage: python clips.py DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from speech import RATE, Wave, speak

EXAMPLE = (
    ("en-us+m3", "one red circle"),
    ("en-us+m3", "two green square"),
    ("en-gb+f2", "stop"),
    ("en-gb+f2", "open up house"),
    ("en-us+f5", "seven yellow fox"),  # a voice that training never uses
    ("en-us+f5", "go left"),
    ("en-gb-scotland+m6", "black dog right"),  # another
)
PAUSE = 0.55


def example() -> Wave:
    """Four voices, one after the other."""
    rng = Random("example")
    silence = np.zeros(round(PAUSE * RATE), np.float32)
    pieces: list[Wave] = [silence]
    for voice, words in EXAMPLE:
        pieces += [speak(words.split(), voice, rng).wave * np.float32(0.7), silence]
    return np.concatenate(pieces)


def main() -> None:
    """Write the clip, and the file that names it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    wave = example()
    soundfile.write(folder / "example.flac", wave, RATE, subtype="PCM_16")
    (folder / "example.json").write_text(json.dumps({"audio": ["example.flac"]}, indent=2) + "\n", encoding="utf-8")
    print(f"{len(wave) / RATE:.1f} s: {'; '.join(words for _, words in EXAMPLE)}")


if __name__ == "__main__":
    main()

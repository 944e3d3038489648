"""What is measured. Lengths are forced and sampling is greedy, so that every system does the same work.

a  64 requests of 128 + 128 tokens          tokens/s
b  decoding one sequence                     ms a token; b-int8: with weights in 8 bits, beside bfloat16
c  the first token after 2,048               ms
d  32 requests of 1,056 + 16 tokens, that share their first 1,024 or share nothing    seconds
e  the step of a tiny model, 32 and 256 sequences   ms
f  LLaVA: 16 pictures, 64 + 64 tokens each   requests/s
g  Whisper: 1 and 8 clips of 30 seconds, 4 + 100 tokens each    seconds
h  from the start of a process to the first token of the tiny model    seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Ask:
    """One request: prompt ids (one placeholder for a picture), output tokens, perhaps a picture or a clip at 16 kHz."""

    ids: list[int]
    new_tokens: int
    image: Any = None
    audio: Any = None


Figures = dict[str, float]


class System(Protocol):
    """What is compared: runs all requests, greedy, exactly as many tokens as asked for."""

    image_token: int
    parts: Figures
    """Of the last `generate`: seconds that its parts took, where the system tells."""

    def generate(self, asks: list[Ask]) -> None: ...


@dataclass(frozen=True)
class Case:
    """A case: its model, how it is measured, and which figure is compared (`better` says which way); others are its parts."""

    model: str
    measure: Callable[[System, np.random.Generator, int], Figures]
    figure: str
    better: str
    bound: Callable[[Figures, dict[str, float]], float | None] = field(default=lambda figures, machine: None)
    variant: str = ""
    """Of each system the one of this name is measured, where it has one, beside ours as it is."""
    fresh: bool = False
    """Each measurement is a process of its own, and begins with it."""


def _ids(rng: np.random.Generator, count: int, vocab: int) -> list[int]:
    return list(map(int, rng.integers(10, vocab - 10, count)))


def _text(rng: np.random.Generator, vocab: int, count: int, prompt: int, new: int) -> list[Ask]:
    return [Ask(_ids(rng, prompt, vocab), new) for _ in range(count)]


def _timed(system: System, asks: list[Ask]) -> float:
    start = time.perf_counter()
    system.generate(asks)
    return time.perf_counter() - start


def _a(system: System, rng: np.random.Generator, vocab: int) -> Figures:
    seconds = _timed(system, _text(rng, vocab, 64, 128, 128))
    return {"seconds": seconds, "out_tok_s": 64 * 128 / seconds}


def _b(system: System, rng: np.random.Generator, vocab: int) -> Figures:
    one = _timed(system, _text(rng, vocab, 1, 128, 1))
    many = _timed(system, _text(rng, vocab, 1, 128, 129))
    return {"ms_per_token": (many - one) / 128 * 1e3}


def _c(system: System, rng: np.random.Generator, vocab: int) -> Figures:
    return {"ttft_ms": _timed(system, _text(rng, vocab, 1, 2048, 1)) * 1e3}


def _d(shared: bool) -> Callable[[System, np.random.Generator, int], Figures]:
    def measure(system: System, rng: np.random.Generator, vocab: int) -> Figures:
        prefix = _ids(rng, 1024, vocab)
        asks = [Ask((prefix if shared else _ids(rng, 1024, vocab)) + _ids(rng, 32, vocab), 16) for _ in range(32)]
        return {"seconds": _timed(system, asks)}

    return measure


def _e(batch: int) -> Callable[[System, np.random.Generator, int], Figures]:
    def measure(system: System, rng: np.random.Generator, vocab: int) -> Figures:
        system.generate(_text(rng, vocab, batch, 16, 2))  # what a process does once is in neither
        one = _timed(system, _text(rng, vocab, batch, 16, 1))
        many = _timed(system, _text(rng, vocab, batch, 16, 65))
        return {"ms_step": (many - one) / 64 * 1e3}

    return measure


def _picture(rng: np.random.Generator) -> Any:
    from PIL import Image

    small = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((336, 336), Image.Resampling.BICUBIC)


def _f(same: bool) -> Callable[[System, np.random.Generator, int], Figures]:
    def measure(system: System, rng: np.random.Generator, vocab: int) -> Figures:
        pictures = [_picture(rng)] * 16 if same else [_picture(rng) for _ in range(16)]
        asks = [Ask([system.image_token, *_ids(rng, 64, vocab)], 64, p) for p in pictures]
        return {"req_s": 16 / _timed(system, asks)}

    return measure


def _clip(rng: np.random.Generator) -> Any:
    t = np.arange(30 * 16_000) / 16_000
    tones = sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(100, 3000, 5)) * 0.1
    return (tones + rng.normal(0, 0.05, t.shape)).astype(np.float32)


def _g(batch: int) -> Callable[[System, np.random.Generator, int], Figures]:
    start = [50258, 50259, 50359, 50363]  # of a text, in English, to be written down, without time stamps

    def measure(system: System, rng: np.random.Generator, vocab: int) -> Figures:
        seconds = _timed(system, [Ask(start, 100, audio=_clip(rng)) for _ in range(batch)])
        return {"seconds": seconds, **system.parts}

    return measure


def _h(system: System, rng: np.random.Generator, vocab: int) -> Figures:
    return {"generate_s": _timed(system, _text(rng, vocab, 1, 128, 1))}


DECODED_BYTES = 606.6e6
"""Bytes of weights and K/V that one decoded token of llama-0.5b reads in bfloat16."""
DECODED_BYTES_INT8 = 606.6e6 / 2
"""The same with weights in 8 bits, the head's too."""
PREFILL_FLOP = 1.31e12
"""Arithmetic of 2,048 tokens through llama-0.5b."""
BATCH_FLOP = 64 * 256 * 2 * 303e6
"""Arithmetic of case a, K/V products left out."""

CASES: dict[str, Case] = {
    "a": Case("llama-0.5b", _a, "out_tok_s", "higher", lambda f, m: BATCH_FLOP / (m["bf16_tflop_s"] * 1e12) / f["seconds"]),
    "b": Case("llama-0.5b", _b, "ms_per_token", "lower", lambda f, m: DECODED_BYTES / m["read_gb_s"] / f["ms_per_token"] / 1e6),
    "b-int8": Case("llama-0.5b", _b, "ms_per_token", "lower",
                   lambda f, m: DECODED_BYTES_INT8 / m["read_gb_s"] / f["ms_per_token"] / 1e6, variant="int8"),
    "c": Case("llama-0.5b", _c, "ttft_ms", "lower", lambda f, m: PREFILL_FLOP / (m["bf16_tflop_s"] * 1e12) / f["ttft_ms"] * 1e3),
    "d-shared": Case("llama-0.5b", _d(True), "seconds", "lower"),
    "d-different": Case("llama-0.5b", _d(False), "seconds", "lower"),
    "e32": Case("llama-tiny", _e(32), "ms_step", "lower"),
    "e256": Case("llama-tiny", _e(256), "ms_step", "lower"),
    "f-different": Case("llava-small", _f(False), "req_s", "higher"),
    "f-same": Case("llava-small", _f(True), "req_s", "higher"),
    "g1": Case("whisper-small", _g(1), "seconds", "lower"),
    "g8": Case("whisper-small", _g(8), "seconds", "lower"),
    "h": Case("llama-tiny", _h, "start_s", "lower", fresh=True),
}  # fmt: skip

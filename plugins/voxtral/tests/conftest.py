"""The tiny checkpoint, the same in transformers, clips of noise, and what transformers' processor makes of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import engine_plugin_llama.plugin
import engine_plugin_voxtral.plugin
import engine_plugin_whisper.plugin
import numpy as np
import pytest
import soundfile
import torch
from engine_plugin_voxtral import tiny
from numpy.typing import NDArray
from transformers import AutoProcessor

from sdk import Architecture
from sdk.testing.reference import load_hf, load_processor

RATE = tiny.RATE
WINDOW = RATE * tiny.WINDOW_SECONDS
KWARGS = {"pad_to_multiple_of": WINDOW, "max_source_positions": 2 * tiny.STATES}
"""HF's processor knows windows of 30 s unless it is told."""
Wave = NDArray[np.float32]
Clip = Callable[..., Wave]
Processed = Mapping[str, torch.Tensor]
Request = Callable[..., Processed]
PROMPTS: Mapping[str, Sequence[str | float]] = {
    "no clip": ["What is said?"],
    "a clip": [1.3],
    "a clip and a question": [0.5, "What is said?"],
    "a long clip": ["What is said here: ", 5.1, " and what is meant?"],
    "exactly a window": [2.0, "x"],
    "a sample more": [2.0 + 1 / RATE, "x"],
    "two clips": [1.3, 0.2, "How do they differ?"],
    "two clips among text": ["One: ", 4.5, ", two: ", 0.7, ". 快速的 🦊?"],
}
"""Texts, and seconds of a clip."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def records() -> list[Architecture]:
    """The records of the three plugins that Voxtral is made of."""
    plugins = (engine_plugin_voxtral.plugin, engine_plugin_llama.plugin, engine_plugin_whisper.plugin)
    return [record for plugin in plugins for record in plugin.engine_architectures()]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint: windows of two seconds."""
    path = tmp_path_factory.mktemp("voxtral")
    tiny.voxtral(0, path)
    return path


@pytest.fixture(scope="session")
def hf(folder: Path) -> Any:
    """The same in transformers."""
    return load_hf(folder)


@pytest.fixture(scope="session")
def processor(folder: Path, records: list[Architecture]) -> Any:
    """The plugin's processor."""
    return load_processor(folder, records)


@pytest.fixture(scope="session")
def hf_processor(folder: Path) -> Any:
    """Transformers' own, over mistral-common."""
    return AutoProcessor.from_pretrained(folder)


def noise(seconds: float = 1.3, seed: int = 0) -> Wave:
    """Noise whose loudness changes, the same each time; a WAV file of 16 bits holds it exactly."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    loudness = np.abs(np.sin(np.arange(count) / RATE * rng.uniform(2, 9)))
    steps = np.round(np.clip(rng.standard_normal(count) * loudness * 0.1, -0.4, 0.4) * 32768)
    return (steps / 32768).astype(np.float32)


def as_wav(wave: Wave) -> str:
    """A clip as base64 of a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="session")
def clip() -> Clip:
    """Makes clips of so many seconds."""
    return noise


@pytest.fixture(scope="session")
def hf_chat(hf_processor: Any) -> Request:
    """What transformers makes of one message of the user, of texts and clips; or of a whole conversation."""

    def chat(content: Sequence[str | Wave] = (), conversation: Sequence[Mapping[str, Any]] = ()) -> Processed:
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "audio", "base64": as_wav(part)}
            for part in content
        ]
        messages = list(conversation) or [{"role": "user", "content": parts}]
        made: Processed = hf_processor.apply_chat_template(messages, processor_kwargs={"audio_kwargs": KWARGS})
        return made

    return chat


@pytest.fixture(scope="session")
def hf_transcription(hf_processor: Any) -> Request:
    """What transformers makes of a transcription request."""

    def request(wave: Wave, language: str | None = None) -> Processed:
        made: Processed = hf_processor.apply_transcription_request(
            [wave], model_id="tiny", language=language, sampling_rate=RATE, format="wav", audio_kwargs=KWARGS
        )
        return made

    return request


@pytest.fixture(params=PROMPTS)
def parts(request: pytest.FixtureRequest) -> list[str | Wave]:
    """Texts and clips of one prompt."""
    found = PROMPTS[request.param]
    return [part if isinstance(part, str) else noise(part, seed) for seed, part in enumerate(found)]


def split(parts: Sequence[str | Wave]) -> tuple[str, list[Wave]]:
    """The prompt that a chat of one message is, and its clips."""
    text = "".join(part if isinstance(part, str) else "[AUDIO]" for part in parts)
    return f"[INST]{text}[/INST]", [part for part in parts if not isinstance(part, str)]

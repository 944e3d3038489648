"""Media as clients send them: content parts of OpenAI's chat messages, with the bytes of a file in them."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

SENT = frozenset({"image", "audio"})
"""Modalities that clients can send."""
SAMPLE_RATE = 16_000
"""Of the kit's clips."""


def content_part(modality: str, item: Any) -> dict[str, Any]:
    """An item of `samples` as a part of a message."""
    return part_of_bytes(modality, file_of(modality, item))


def part_of_bytes(modality: str, content: bytes) -> dict[str, Any]:
    """A file's bytes as a part of a message, whether they are a picture (a clip) or not."""
    data = base64.b64encode(content).decode()
    if modality == "image":
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def file_of(modality: str, item: Any) -> bytes:
    """A picture as PNG, a clip of 16 kHz as WAV in 16 bits."""
    out = io.BytesIO()
    if modality == "image":
        item.save(out, "PNG")
    else:
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes((item.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()

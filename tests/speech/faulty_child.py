"""What a child process that decodes clips may do wrong: it is asked by bytes that say what."""

from __future__ import annotations

import json
import os
import time
from typing import BinaryIO

from core.media import audio_child


def child(requests: BinaryIO, answers: BinaryIO) -> None:
    """As the real one, but for some files."""
    real = audio_child.open_decoder

    def open_decoder(file: BinaryIO):  # type: ignore[no-untyped-def]
        what = file.read(8)
        file.seek(0)
        if what == b"CRASH!!!":
            os.abort()
        if what == b"HANG!!!!":
            time.sleep(3600)
        if what == b"EXIT!!!!":
            os._exit(0)
        if what == b"MEMORY!!":
            bytes(3 << 30)
        if what == b"RUBBISH!":
            answers.write(b"this is no JSON\n")
        if what == b"TOO MUCH":
            answers.write(json.dumps({"samples": 1 << 40}).encode() + b"\n")
        if what == b"UNKNOWN!":
            answers.write(json.dumps({"error": "SystemExit"}).encode() + b"\n")
        return real(file)

    audio_child.open_decoder = open_decoder
    audio_child.child(requests, answers)

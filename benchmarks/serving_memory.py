"""Whether a server's memory grows: many requests of every kind, and what its processes hold meanwhile.

    python -m benchmarks.serving_memory

Requests are texts, pictures that were seen before and such that were not, streams, clients that leave, and what is refused. The
caches fill up in the first requests; what is printed is the growth after those, in MiB for a thousand requests.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import random
import tempfile
import time
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from .served import Served, own_mib

CHAT = "/v1/chat/completions"
TOGETHER = 8
CACHES = {"kv_cache_bytes": 4 * 2**20, "encoder_cache_bytes": 2 * 2**20, "processing_cache_bytes": 2 * 2**20}
"""Small enough to be full before anything is counted."""
KINDS = ("text", "stream", "picture", "new picture", "leaves", "refused")


def picture(seed: int) -> str:
    """A picture of its own as a `data:` URI."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def request(kind: str, number: int) -> dict[str, Any]:
    """What is sent."""
    text: dict[str, Any] = {"type": "text", "text": f"question {number}: " + "why " * (number % 23)}
    content = [text]
    if "picture" in kind:
        url = picture(number if kind == "new picture" else number % 3)
        content = [{"type": "image_url", "image_url": {"url": url}}, text]
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "temperature": 0}
    if kind in ("stream", "leaves"):
        asked["stream"] = True
    if kind == "refused":
        asked["n"] = 0
    return asked


async def send(http: httpx2.AsyncClient, number: int) -> None:
    """One request to its end, or to where its client leaves."""
    kind = random.Random(number).choice(KINDS)
    async with http.stream("POST", CHAT, json=request(kind, number)) as response:
        assert (response.status_code == 400) == (kind == "refused"), response.status_code
        async for _ in response.aiter_bytes():
            if kind == "leaves":
                return


async def send_all(url: str, numbers: range) -> None:
    """A few at a time."""
    waiting = iter(numbers)

    async def work() -> None:
        for number in waiting:
            await send(http, number)

    async with httpx2.AsyncClient(base_url=url, timeout=None) as http:
        await asyncio.gather(*(work() for _ in range(TOGETHER)))


def measure(model: str, first: int, then: int, every: int) -> dict[str, Any]:
    """MiB of each process after every so many requests, and the growth after the `first`."""
    seen: list[dict[str, float]] = []
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config, contextlib.ExitStack() as stack:
        json.dump(CACHES, config)  # which is YAML as well
        config.flush()
        served = stack.enter_context(Served(model, "--config", config.name))
        parts = served.parts()
        start = time.monotonic()
        for begin in range(0, first + then, every):
            asyncio.run(send_all(served.url, range(begin, begin + every)))
            if begin + every >= first:
                seen.append({name: round(own_mib(pid), 1) for name, pid in parts.items()})
        assert served.parts() == parts, "a process was replaced"
    growth = {name: round((seen[-1][name] - seen[0][name]) / then * 1000, 2) for name in parts}
    return {
        "requests": first + then,
        "seconds": round(time.monotonic() - start, 1),
        "mib": seen,
        "mib_per_1000": growth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo/llava")
    parser.add_argument("--first", type=int, default=500, help="requests before anything is counted")
    parser.add_argument("--then", type=int, default=2000)
    parser.add_argument("--every", type=int, default=250)
    args = parser.parse_args()
    print(json.dumps({"model": args.model, **measure(args.model, args.first, args.then, args.every)}), flush=True)


if __name__ == "__main__":
    main()

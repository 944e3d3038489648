"""What serving costs: many streams over HTTP beside `core.LLM` on the same work, in turn, in the same run.

    python -m benchmarks.serving

Client and server share the machine's processors, as the engine does with both. Printed as one JSON line:

tok_s                 output tokens a second, of each; their ratio
tok_per_engine_cpu_s  output tokens for a second of the processor that the process with the engine takes; their ratio
ttft_ms, itl_ms       of the streams: time to the first token, and between two of them
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import numpy as np

from .models import model_folder
from .served import Served, cpu_seconds

HERE = Path(__file__).parent
OPTIONS = {"dtype": "bfloat16", "max_num_seqs": 256, "max_model_len": 4096}


class Round(NamedTuple):
    """One run of all requests.

    Attributes:
        seconds: From the first request to the last token.
        cpu_seconds: Of the process with the engine.
        first: Seconds to the first token, for each stream.
        between: Seconds between two tokens, for all streams.
    """

    seconds: float
    cpu_seconds: float
    first: Sequence[float] = ()
    between: Sequence[float] = ()


def prompts(seed: int, count: int, length: int) -> list[list[int]]:
    """Random ids, none of them special."""
    rng = np.random.default_rng(seed)
    return [list(map(int, rng.integers(10, 4_000, length))) for _ in range(count)]


def _offline(connection: Connection, folder: str) -> None:
    """`core.LLM` in a process of its own: runs what it is sent."""
    from core import LLM, SamplingParams

    with LLM(folder, disable_progress=True, **OPTIONS) as llm:
        connection.send("ready")
        while (asked := connection.recv()) is not None:
            given, new_tokens = asked
            params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=new_tokens)
            start, cpu = time.perf_counter(), time.process_time()
            outputs = llm.generate([{"prompt_token_ids": ids} for ids in given], params, use_progress=False)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            assert all(len(output.outputs[0].token_ids) == new_tokens for output in outputs)
            connection.send(Round(seconds, cpu))


async def _stream(http: httpx2.AsyncClient, ids: list[int], new_tokens: int) -> list[float]:
    """When the request was sent, and when each event with tokens came."""
    asked = {"prompt": ids, "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    times, tokens = [time.perf_counter()], 0
    async with http.stream("POST", "/v1/completions", json=asked) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["choices"]:
                times.append(time.perf_counter())
            else:
                tokens = event["usage"]["completion_tokens"]
    assert tokens == new_tokens, f"{tokens} tokens"
    return times


async def _online(served: Served, given: list[list[int]], new_tokens: int) -> Round:
    """All prompts at once, each a stream."""
    engine = served.parts()["engine_process"]
    limits = httpx2.Limits(max_connections=len(given))
    async with httpx2.AsyncClient(base_url=served.url, timeout=None, limits=limits) as http:
        start, cpu = time.perf_counter(), cpu_seconds(engine)
        times = await asyncio.gather(*(_stream(http, ids, new_tokens) for ids in given))
        seconds, cpu = time.perf_counter() - start, cpu_seconds(engine) - cpu
    first = [stamps[1] - stamps[0] for stamps in times]
    # Tokens that came in one event share the time before it.
    between = [(stamps[-1] - stamps[1]) / (new_tokens - 1) for stamps in times]
    return Round(seconds, cpu, first, between)


def measure(folder: Path, *, streams: int, length: int, new_tokens: int, rounds: int) -> dict[str, Any]:
    """Both in turn, after a run that is not counted."""
    context = multiprocessing.get_context("spawn")
    offline, theirs = context.Pipe()
    process = context.Process(target=_offline, args=(theirs, str(folder)), daemon=True)
    process.start()
    assert offline.recv() == "ready"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    runs: dict[str, list[Round]] = {"llm": [], "server": []}
    with Served(str(folder), *options) as served:
        for i in range(-1, rounds):
            given = prompts(i + 1, streams, length)
            wanted = new_tokens if i >= 0 else 4
            offline.send((given, wanted))
            alone = offline.recv()
            online = asyncio.run(_online(served, given, wanted))
            if i >= 0:
                runs["llm"].append(alone)
                runs["server"].append(online)
    offline.send(None)
    process.join()
    return figures(runs, streams * new_tokens)


def figures(runs: dict[str, list[Round]], tokens: int) -> dict[str, Any]:
    """Medians over the rounds; ratios within each round, since a shared machine changes its speed."""
    pairs = list(zip(runs["server"], runs["llm"]))
    first = [seconds for run in runs["server"] for seconds in run.first]
    between = [seconds for run in runs["server"] for seconds in run.between]
    return {
        "tok_s": {name: round(tokens / statistics.median(r.seconds for r in own), 1) for name, own in runs.items()},
        "tok_s_ratio": round(statistics.median(alone.seconds / online.seconds for online, alone in pairs), 3),
        "tok_per_engine_cpu_s": {
            name: round(tokens / statistics.median(r.cpu_seconds for r in own), 1) for name, own in runs.items()
        },
        "tok_per_engine_cpu_s_ratio": round(
            statistics.median(alone.cpu_seconds / online.cpu_seconds for online, alone in pairs), 3
        ),
        "ttft_ms": _quantiles(first),
        "itl_ms": _quantiles(between),
        "rounds": {name: [round(tokens / r.seconds, 1) for r in own] for name, own in runs.items()},
    }


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(seconds, p)) * 1e3, 1) for p in (50, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-0.5b", help="of benchmarks/models.py, with random weights")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    folder = model_folder(HERE / "models", args.model)
    found = measure(folder, streams=args.streams, length=args.prompt, new_tokens=args.new, rounds=args.rounds)
    print(json.dumps({"model": args.model, **found}), flush=True)


if __name__ == "__main__":
    main()

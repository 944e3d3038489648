"""`engine bench serve`: how fast a running server is, whoever made it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..client.endpoint import DEFAULT_URL, Endpoint, missing
from ..errors import InvalidRequestError
from .server_options import ApiKey, ServedName, Url

if TYPE_CHECKING:
    from ..client.load import Load


def serve(
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: ServedName = None,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, help="How many.")] = 100,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="At a time.")] = 16,
    input_len: Annotated[int, typer.Option("--input-len", min=1, help="Tokens of a prompt, about.")] = 128,
    output_len: Annotated[int, typer.Option("--output-len", min=1, help="Tokens of an answer.")] = 64,
    images: Annotated[int, typer.Option("--images", min=0, help="Pictures with each prompt, of noise.")] = 0,
    image_size: Annotated[str, typer.Option("--image-size", help="Their WIDTHxHEIGHT.")] = "336x336",
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos/--no-ignore-eos", help="Have every answer be as long as it may.")
    ] = True,
    warmup: Annotated[
        int | None, typer.Option("--warmup", min=0, help="Requests that are not counted; left out, one a client.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that a request may take.")] = 600.0,
    seed: Annotated[int, typer.Option("--seed", help="Of what is asked.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> int:
    """Ask a server from many clients at a time, and tell how fast it answers. 1 where a request failed."""
    try:
        from ..client.figures import figures
        from ..client.load import Load, Work
        from ..client.talk import Talk
    except ImportError as e:
        raise missing(e) from e
    endpoint = Endpoint.of(url, api_key)
    if model is None:
        with Talk(endpoint) as talk:
            model = str(talk.models()[0]["id"])
    size = _size(image_size)
    warmup = concurrency if warmup is None else warmup
    work = Work(model, requests, concurrency, input_len, output_len, images, size, ignore_eos, warmup, timeout, seed)
    found = figures(work, asyncio.run(_with_progress(Load(endpoint, work), requests)))
    print(json.dumps(found, indent=2)) if as_json else _show(found)
    return 1 if found["failed"] else 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 8192 and 0 < int(height) <= 8192):
        raise InvalidRequestError(
            f"--image-size is WIDTHxHEIGHT, such as 336x336, not {text!r:.40}", param="--image-size"
        )
    return int(width), int(height)


async def _with_progress(load: Load, total: int) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("requests", total=total)
        return await load.run(lambda sample: progress.advance(bar))


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..client.figures import QUANTILES, TIMES

    work, done = found["work"], max(1, found["completed"])
    console = Console()
    console.print(
        f"{work['model']}: {found['completed']} answers, {work['concurrency']} at a time, "
        f"{found['prompt_tokens'] / done:.0f} + {found['output_tokens'] / done:.0f} tokens each, in {found['seconds']:.1f} s"
    )
    console.print(
        f"{found['output_tokens_per_second']:.1f} tokens/s, with those of prompts {found['total_tokens_per_second']:.1f}; "
        f"{found['requests_per_second']:.2f} requests/s\n"
    )
    table = Table("ms", *(f"p{share * 100:g}" for share in QUANTILES), "mean", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, title in TIMES.items():
        times = found[name]
        if times is not None:
            cells = [times[f"p{share * 100:g}"] for share in QUANTILES] + [times["mean"]]
            table.add_row(title, *(f"{cell * 1e3:.1f}" for cell in cells))
    console.print(table)
    if found["failed"]:
        console.print(f"\n{found['failed']} failed:")
        for kind, error in found["errors"].items():
            console.print(f"  {error['count']} × {kind}: {error['message']}", markup=False, soft_wrap=True)

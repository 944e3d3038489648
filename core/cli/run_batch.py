"""`engine run-batch`: a file of requests, in OpenAI's form, done without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..client.endpoint import missing
from .plugin_options import PLUGIN_OPTION_HELP, parse_plugin_options
from .quantization import QUANTIZATION_HELP, parse_quantization


def run_batch(
    model: Annotated[str, typer.Argument(help="Folder in HF layout, hub id, or a shipped demo.")],
    source: Annotated[Path, typer.Option("--input", "-i", metavar="FILE", help="Requests, one JSON object a line.")],
    target: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Records, in order of completion.")],
    resume: Annotated[bool, typer.Option("--resume", help="Skip the requests that --output has records of.")] = False,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, max=4096, help="Requests at a time.")] = 64,
    served_model_name: Annotated[
        str | None, typer.Option("--served-model-name", help="What requests call the model.")
    ] = None,
    allowed_media_host: Annotated[
        list[str] | None, typer.Option("--allowed-media-host", help="Fetch pictures and clips from this host.")
    ] = None,
    request_timeout: Annotated[
        float, typer.Option("--request-timeout", help="Seconds that a request may take.")
    ] = 3600,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    quantization: Annotated[str | None, typer.Option("--quantization", help=QUANTIZATION_HELP)] = None,
    max_model_len: Annotated[int | None, typer.Option("--max-model-len", help="Longest sequence, in tokens.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option("--max-num-seqs", help="Most sequences in a step.")] = None,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", help="ARCH=distribution, where two claim one.")
    ] = None,
    plugin_option: Annotated[list[str] | None, typer.Option("--plugin-option", help=PLUGIN_OPTION_HELP)] = None,
) -> int:
    """Do a file of requests with a model. What is wrong with one is its record; 1 where there is such."""
    from ..plugins import parse_pins

    try:
        from ..server.batch import run_batch as run
        from ..server.settings import ServerSettings
    except ImportError as e:
        raise missing(e) from e
    settings = ServerSettings.make({
        "served_model_names": () if served_model_name is None else (served_model_name,),
        "allowed_media_hosts": tuple(allowed_media_host or ()),
        "request_timeout": request_timeout,
        "log_level": "warning",
    })  # fmt: skip
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "plugins": parse_pins(plugin or []),
        "plugin_options": parse_plugin_options(plugin_option),
        "quantization": None if quantization is None else parse_quantization(quantization),
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "max_queued_requests": max(256, 2 * concurrency),  # the file waits its turn: none of it is refused
    }
    options = {name: value for name, value in options.items() if value is not None}
    with _Progress() as progress:
        tally = run(
            model, source, target, settings, options, resume=resume, concurrency=concurrency, on_done=progress.show
        )
    parts = [f"{tally.answered} answered", f"{tally.failed} failed"]
    if tally.skipped:
        parts.append(f"{tally.skipped} done before")
    print(f"{', '.join(parts)}, in {tally.seconds:.1f} s: {target}", file=sys.stderr)
    return 1 if tally.failed else 0


class _Progress:
    """A bar on standard error, once there is something to show."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress

        console = Console(stderr=True)
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: Any = None
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int) -> None:
        """How far it has come."""
        if self._task is None:
            self._task = self._bar.add_task("requests", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)

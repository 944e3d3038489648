"""`engine explain`: what a model would be on this machine, before anything is loaded."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .limits import LIMIT_HELP, parse_limits
from .output import as_json, pairs
from .plugin_options import PLUGIN_OPTION_HELP, parse_plugin_options
from .quantization import QUANTIZATION_HELP, parse_quantization


def explain(
    model: Annotated[str, typer.Argument(help="Folder in HF layout (config.json is enough), hub id, or demo/….")],
    task: Annotated[
        str | None, typer.Option("--task", help="embed: what it would be to make vectors with a model that generates.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    quantization: Annotated[str | None, typer.Option("--quantization", help=QUANTIZATION_HELP)] = None,
    max_model_len: Annotated[int | None, typer.Option("--max-model-len", help="Longest sequence, in tokens.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option("--max-num-seqs", help="Most sequences in a step.")] = None,
    kv_cache_bytes: Annotated[int | None, typer.Option("--kv-cache-bytes", help="Size of the page pool.")] = None,
    limit: Annotated[list[str] | None, typer.Option("--limit", "--limit-mm-per-prompt", help=LIMIT_HELP)] = None,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", help="ARCH=distribution, where two claim one.")
    ] = None,
    plugin_option: Annotated[list[str] | None, typer.Option("--plugin-option", help=PLUGIN_OPTION_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a model would be on this machine: who runs it, what it takes, what fits, and what is refused and why.

    Nothing is loaded. Exit code 0 where the model would start, 1 where it would not.
    """
    from ..explanation import explain as find_out
    from ..plugins import parse_pins

    options: dict[str, Any] = {
        "task": task,
        "dtype": dtype,
        "device": device,
        "quantization": parse_quantization(quantization) if quantization is not None else None,
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "kv_cache_bytes": kv_cache_bytes,
        "limit_mm_per_prompt": parse_limits(limit) if limit else None,
        "plugins": parse_pins(plugin or []),
        "plugin_options": parse_plugin_options(plugin_option),
    }
    found = find_out(model, **{name: value for name, value in options.items() if value is not None})
    print(as_json(found.as_json()) if json else pairs(found.lines()))
    if found.refused is not None:
        raise typer.Exit(1)

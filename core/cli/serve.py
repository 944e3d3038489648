"""`engine serve`: models behind an OpenAI-compatible HTTP server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InvalidConfigError, InvalidRequestError
from .limits import LIMIT_HELP, parse_limits
from .option_sources import option, read_config
from .plugin_options import PLUGIN_OPTION_HELP, parse_plugin_options


def serve(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Folder in HF layout, hub id, or a shipped demo; demo: all of these."),
    ] = None,
    # ---- the server
    host: Annotated[str | None, option("--host", help="Address to listen at.", default="127.0.0.1")] = None,
    port: Annotated[int | None, option("--port", help="0: any that is free.", default=2242)] = None,
    api_key: Annotated[list[str] | None, option("--api-key", help="Ask for this key; may be repeated.")] = None,
    served_model_name: Annotated[
        list[str] | None, option("--served-model-name", help="What clients call a model; one for each.")
    ] = None,
    strict: Annotated[bool | None, option("--strict/--no-strict", help="Refuse parameters that nobody knows.")] = None,
    allowed_origin: Annotated[
        list[str] | None, option("--allowed-origin", help="Pages that may call from a browser.")
    ] = None,
    allowed_media_host: Annotated[
        list[str] | None,
        option("--allowed-media-host", "--allowed-media-domains", help="Fetch pictures and clips from this host."),
    ] = None,
    allowed_media_network: Annotated[
        list[str] | None,
        option("--allowed-media-network", help="Private network, as 10.1.0.0/16, where these hosts may be."),
    ] = None,
    trust_request_template: Annotated[
        bool | None,
        option("--trust-request-template/--no-trust-request-template", help="Requests may bring a chat template."),
    ] = None,
    enable_mm_embeds: Annotated[
        bool | None,
        option("--enable-mm-embeds/--no-enable-mm-embeds", help="Requests may bring embeddings of pictures."),
    ] = None,
    max_body_bytes: Annotated[int | None, option("--max-body-bytes", help="Largest request.", default="64 MiB")] = None,
    request_timeout: Annotated[
        float | None, option("--request-timeout", help="Seconds that a request may take.", default=600)
    ] = None,
    write_timeout: Annotated[
        float | None, option("--write-timeout", help="Seconds until who does not read is dropped.", default=60)
    ] = None,
    drain_timeout: Annotated[
        float | None,
        option("--drain-timeout", "--shutdown-timeout", help="Seconds for requests in flight at the end.", default=30),
    ] = None,
    input_processes: Annotated[
        int | None, option("--input-processes", help="Processes for prompts, of each model.", default="a CPU in 4")
    ] = None,
    input_timeout: Annotated[
        float | None, option("--input-timeout", help="Seconds that a prompt may take there.", default=30)
    ] = None,
    load_timeout: Annotated[
        float | None, option("--load-timeout", help="Seconds without progress until loading is given up.", default=600)
    ] = None,
    engine_restarts: Annotated[
        int | None, option("--engine-restarts", help="How often a dead engine is replaced.", default=2)
    ] = None,
    watchdog_timeout: Annotated[
        float | None, option("--watchdog-timeout", help="Seconds until a silent engine is taken to hang.", default=300)
    ] = None,
    log_level: Annotated[
        str | None, option("--log-level", help="debug, info, warning or error.", default="info")
    ] = None,
    log_format: Annotated[str | None, option("--log-format", help="text or json.", default="text")] = None,
    log_prompts: Annotated[
        bool | None, option("--log-prompts/--no-log-prompts", help="Write prompts into the log.")
    ] = None,
    otlp_endpoint: Annotated[
        str | None, option("--otlp-endpoint", help="Send traces to this OpenTelemetry collector.")
    ] = None,
    # ---- the engines
    task: Annotated[str | None, option("--task", help="embed: make vectors with a model that generates.")] = None,
    dtype: Annotated[str | None, option("--dtype", help="auto, float32, bfloat16 or float16.", default="auto")] = None,
    device: Annotated[str | None, option("--device", help="auto, cpu or cuda.", default="auto")] = None,
    quantization: Annotated[
        str | None, option("--quantization", help="Make the weights smaller, such as int8.")
    ] = None,
    max_model_len: Annotated[int | None, option("--max-model-len", help="Longest sequence, in tokens.")] = None,
    max_num_seqs: Annotated[int | None, option("--max-num-seqs", help="Most sequences in a step.", default=256)] = None,
    max_num_batched_tokens: Annotated[
        int | None, option("--max-num-batched-tokens", help="Most tokens in a step.", default=2048)
    ] = None,
    max_queued_requests: Annotated[
        int | None, option("--max-queued-requests", help="Most requests that wait for their turn.", default=256)
    ] = None,
    max_queued_tokens: Annotated[
        int | None, option("--max-queued-tokens", help="Most tokens of prompts that wait for theirs.", default=2**20)
    ] = None,
    kv_cache_bytes: Annotated[int | None, option("--kv-cache-bytes", help="Size of the page pool.")] = None,
    block_size: Annotated[int | None, option("--block-size", help="Tokens in a page.", default=32)] = None,
    prefix_caching: Annotated[
        bool | None, option("--prefix-caching/--no-prefix-caching", help="Share pages of equal beginnings.")
    ] = None,
    enforce_eager: Annotated[
        bool | None,
        option("--enforce-eager/--no-enforce-eager", help="Run each step as the model's own Python, none recorded."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        option("--limit", "--limit-mm-per-prompt", help=LIMIT_HELP, default="image=8"),
    ] = None,
    max_audio_seconds: Annotated[
        float | None, option("--max-audio-seconds", help="Longest clip.", default=1800)
    ] = None,
    plugin: Annotated[list[str] | None, option("--plugin", help="ARCH=distribution, where two claim one.")] = None,
    plugin_option: Annotated[list[str] | None, option("--plugin-option", help=PLUGIN_OPTION_HELP)] = None,
    seed: Annotated[int | None, option("--seed", help="Of requests that bring none.", default=0)] = None,
    revision: Annotated[str | None, option("--revision", help="Of a hub id.")] = None,
    tokenizer: Annotated[str | None, option("--tokenizer", help="Folder or hub id, if not the model's.")] = None,
    chat_template: Annotated[
        str | None, option("--chat-template", help="A Jinja template or its path, in the place of the model's.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="YAML file of any of these.",
            envvar="ENGINE_CONFIG",
            is_eager=True,
            callback=read_config,
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be served, and end.")] = False,
) -> int:
    """Serve models over HTTP, in OpenAI's form.

    Every option may stand in the environment (--max-model-len as ENGINE_MAX_MODEL_LEN; what may be repeated has a value a line
    there) or in the --config file; a flag comes before the environment, and that before the file.
    """
    from ..plugins import parse_pins

    if not models:
        raise InvalidRequestError("say which model to serve, such as demo/llava", param="--model")
    from_file: Mapping[str, Any] = context.obj or {}
    options = {
        "task": task,
        "dtype": dtype,
        "device": device,
        "quantization": quantization,
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_queued_requests": max_queued_requests,
        "max_queued_tokens": max_queued_tokens,
        "kv_cache_bytes": kv_cache_bytes,
        "block_size": block_size,
        "enable_prefix_caching": prefix_caching,
        "enforce_eager": enforce_eager,
        "limit_mm_per_prompt": parse_limits(limit) if limit else None,
        "max_audio_seconds": max_audio_seconds,
        "plugins": parse_pins(plugin) if plugin else None,
        "plugin_options": parse_plugin_options(plugin_option) or None,
        "seed": seed,
        "revision": revision,
        "tokenizer": tokenizer,
        "chat_template": chat_template,
    }
    server = {
        "host": host,
        "port": port,
        "api_keys": api_key,
        "served_model_names": served_model_name,
        "strict": strict,
        "allowed_origins": allowed_origin,
        "allowed_media_hosts": allowed_media_host,
        "allowed_media_networks": allowed_media_network,
        "trust_request_template": trust_request_template,
        "enable_mm_embeds": enable_mm_embeds,
        "max_body_bytes": max_body_bytes,
        "request_timeout": request_timeout,
        "write_timeout": write_timeout,
        "drain_timeout": drain_timeout,
        "input_processes": input_processes,
        "input_timeout": input_timeout,
        "load_timeout": load_timeout,
        "engine_restarts": engine_restarts,
        "watchdog_timeout": watchdog_timeout,
        "log_level": log_level,
        "log_format": log_format,
        "log_prompts": log_prompts,
        "otlp_endpoint": otlp_endpoint,
    }
    return _run(models, _given(server), _given(options), from_file, dry_run)


def _run(
    models: list[str], server: dict[str, Any], options: dict[str, Any], from_file: Mapping[str, Any], dry_run: bool
) -> int:
    try:
        from ..server.settings import ServerSettings
        from ..server.start import dry_run as tell
        from ..server.start import serve as run
    except ImportError as e:
        raise InvalidConfigError(
            f"the server needs {e.name!r}, which is not installed: pip install 'engine-plugin-sdk[server]'",
            param="--serve",
        ) from e
    own = {name: value for name, value in from_file.items() if name in ServerSettings.model_fields}
    settings = ServerSettings.make({**own, **server})
    options = {**{name: value for name, value in from_file.items() if name not in own}, **options}
    return tell(models, settings, options) if dry_run else run(models, settings, options)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the user gave."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None and value != []
    }

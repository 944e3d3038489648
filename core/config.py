"""The engine's options: one validated, immutable configuration. Unknown names are errors, with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import InvalidConfigError

DEFAULT_LIMITS: Mapping[str, int] = {"image": 8}
"""Most items in a prompt of modalities whose limit nobody gave; of others any number is taken."""


class EngineConfig(BaseModel):
    """Everything `LLM(...)` takes.

    Attributes:
        model: Folder of a checkpoint, a hub id, or a shipped demo such as `demo/llava`.
        task: What the model is used for where it can do several things: `embed` makes vectors with a model that generates.
            None: what its plugin says.
        dtype: Of the weights and activations; `auto`: as the checkpoint says, bfloat16 where it says float16 on a CPU
            and float32 where it says nothing.
        device: `auto`, `cpu` or `cuda`.
        quantization: A scheme that makes the weights smaller, such as `"int8"`: its name, or a mapping with `quant_method` and
            its options; None: as the checkpoint's own config says.
        max_model_len: Longest sequence, prompt and output together; None: what the model was trained for.
        max_num_seqs: Most sequences in one step.
        max_num_batched_tokens: Most tokens in one step, decoded and prefilled together.
        block_size: Tokens in a page of K/V. Without effect where no layer keeps K/V.
        kv_cache_bytes: Size of the page pool; None: sized from the machine's memory, see `engine explain`. Without effect
            where no layer keeps K/V.
        enable_prefix_caching: Share the pages of equal beginnings; None: where the model can.
        encoder_cache_bytes: Most embeddings of media kept for requests to come; 0: none.
        processing_cache_bytes: Most processed media kept for requests to come; 0: none.
        limit_mm_per_prompt: Modality → most items in a prompt; one that is not named keeps its default, which for pictures is 8.
            Where no item of any modality is allowed, what only media need is not loaded.
        max_audio_seconds: Longest clip.
        allowed_media_hosts: Hosts that pictures and clips may be fetched from; none: nothing is fetched.
        allowed_media_networks: Private networks, as `"10.1.0.0/16"`, that these hosts may be in.
        max_queued_requests: `AsyncLLM`: most requests that wait for their first step; more are refused.
        max_queued_tokens: `AsyncLLM`: most tokens of prompts that wait for their first step; what would be more is refused.
        mm_processor_kwargs: Extra arguments for the plugin's HF processor, for every request.
        plugins: Architecture → distribution, where two claim one.
        plugin_options: The plugin's own options, see `engine plugins show`: name → value, or a text that the option's type reads.
        enforce_eager: Run every step as the model's own Python; otherwise steps that only decode are recorded on a CPU and
            called again with less of it.
        seed: Makes sampling of requests that bring no seed of their own repeatable.
        revision: Of a hub id.
        tokenizer: Folder or hub id, when it is not the model's.
        chat_template: A Jinja template, or a path to one, in the place of the model's.
        hf_overrides: Values put in the place of those in config.json.
        strict_weights: Leftover tensors of the checkpoint are an error (True) or a warning.
        check_weights: Look for NaN and infinity in the weights while loading.
        disable_progress: No progress bars, and no plan at start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    task: Literal["generate", "transcription", "embed", "classify", "score"] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    quantization: str | dict[str, Any] | None = None
    max_model_len: int | None = Field(None, ge=1)
    max_num_seqs: int = Field(256, ge=1, le=4096)
    max_num_batched_tokens: int = Field(2048, ge=1, le=1_048_576)
    block_size: int = Field(32, ge=1, le=1024)
    kv_cache_bytes: int | None = Field(None, ge=1)
    enable_prefix_caching: bool | None = None
    encoder_cache_bytes: int = Field(256 * 2**20, ge=0)
    processing_cache_bytes: int = Field(256 * 2**20, ge=0)
    limit_mm_per_prompt: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: dict(DEFAULT_LIMITS))
    max_audio_seconds: float = Field(1800.0, gt=0, le=86_400)
    allowed_media_hosts: tuple[str, ...] = ()
    allowed_media_networks: tuple[str, ...] = ()
    max_queued_requests: int = Field(256, ge=1)
    max_queued_tokens: int = Field(1_048_576, ge=1)
    mm_processor_kwargs: dict[str, Any] = Field(default_factory=dict)
    plugins: dict[str, str] = Field(default_factory=dict)
    plugin_options: dict[str, Any] = Field(default_factory=dict)
    enforce_eager: bool = False
    seed: int = 0
    revision: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    hf_overrides: dict[str, Any] = Field(default_factory=dict)
    strict_weights: bool = True
    check_weights: bool = False
    disable_progress: bool = False

    @field_validator("limit_mm_per_prompt")
    @classmethod
    def _over_the_default(cls, given: dict[str, int]) -> dict[str, int]:
        return {**DEFAULT_LIMITS, **given}

    @classmethod
    def make(cls, model: str, options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> EngineConfig:
        """Validate options; values the user left out come from `defaults` (a plugin's `runtime_defaults`).

        So do limits of modalities that the user's `limit_mm_per_prompt` does not name.

        Raises:
            InvalidConfigError: An option is unknown or out of range; it is named, with the nearest known name.
        """
        for name in options:
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name, cls.model_fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(cls.model_fields))}"
                raise InvalidConfigError(f"unknown option {name!r}{hint}", param=name)
        given = {**(defaults or {}), "model": model, **{k: _plain(v) for k, v in options.items()}}
        theirs, own = ((found or {}).get("limit_mm_per_prompt") for found in (defaults, options))
        if isinstance(theirs, Mapping) and isinstance(own, Mapping):
            given["limit_mm_per_prompt"] = {**theirs, **own}
        try:
            return cls(**given)
        except ValidationError as e:
            problems = [f"{'.'.join(map(str, p['loc']))}: {p['msg']} (got {p['input']!r:.60})" for p in e.errors()[:5]]
            raise InvalidConfigError("; ".join(problems), param=str(e.errors()[0]["loc"][0])) from None


def _plain(value: Any) -> Any:
    """Accept `torch.bfloat16`, `torch.device` and paths where a string is meant."""
    kind = type(value).__name__
    if kind in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return str(value) if hasattr(value, "__fspath__") else value

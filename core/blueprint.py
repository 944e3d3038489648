"""`Blueprint`: a model as start-up knows it before any weight is read. What the engine is built from, and `explain` tells of."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sdk.interfaces import Model
from sdk.multimodal.processor import HF_DATA_NAMES
from sdk.pooling import POOLING_TASKS
from sdk.spec import Capabilities

from .checkpoint import Checkpoint, locate
from .config import EngineConfig
from .demos import find_demo
from .errors import InvalidConfigError
from .loader import build_model, resolve_device, resolve_dtype
from .plugins import Catalog, ResolvedPlugin
from .pooling.tasks import for_task, pools
from .quantization.attach import Quantized, attach_scheme
from .quantization.choice import choose_scheme
from .quantization.names import checkpoint_names
from .text_only import LeftOut, leave_out_media, takes_no_media
from .transcription.support import offered_tasks

DEFAULT_LENGTH = 2048
"""Longest sequence of a model whose config does not say."""


@dataclass(frozen=True)
class Blueprint:
    """Everything but the weights.

    Attributes:
        config: The options, with the plugin's defaults.
        checkpoint: The model's folder.
        plugin, capabilities: Who runs it, and what it can do.
        dtype, device: How and where.
        model: On the meta device.
        left_out: Parts that were taken out of it.
        quantized: What is done to its weights; None: nothing.
    """

    config: EngineConfig
    checkpoint: Checkpoint
    plugin: ResolvedPlugin
    capabilities: Capabilities
    dtype: torch.dtype
    device: torch.device
    model: Model
    left_out: LeftOut
    quantized: Quantized | None = None

    @classmethod
    def of(cls, model: str, options: Mapping[str, object], *, weights: bool = True) -> Blueprint:
        """Find a model and its plugin, and build it on the meta device.

        Args:
            model: Folder, hub id, or `demo/…`.
            options: See `EngineConfig`.
            weights: Whether a hub id's weights are fetched as well.

        Raises:
            StartupError: The model cannot be run as asked.
        """
        asked = EngineConfig.make(model, options)
        folder = find_demo(asked.model) or locate(asked.model, asked.revision, weights=weights)
        checkpoint = Checkpoint(folder, asked.hf_overrides)
        plugin = Catalog.installed().resolve(checkpoint.architecture, pins=asked.plugins)
        capabilities = plugin.capabilities(checkpoint.view)
        tasks = offered_tasks(plugin, capabilities.tasks)
        capabilities = capabilities.model_copy(update={"tasks": tasks})
        if plugin.architecture.kind == "model":
            capabilities = for_task(asked.task, capabilities, plugin, plugin.load("model"))
        _refuse_what_it_cannot(plugin, capabilities)
        config = EngineConfig.make(model, options, plugin.architecture.runtime_defaults)
        _refuse_unknown_modalities(config, capabilities)
        dtype, device = resolve_dtype(config, checkpoint), resolve_device(config)
        scheme = choose_scheme(config, checkpoint, plugin, capabilities)
        built = build_model(plugin, config, checkpoint, dtype)
        text_only = takes_no_media(capabilities, config.limit_mm_per_prompt)
        left_out = leave_out_media(built) if text_only else LeftOut()
        quantized = None
        if scheme is not None:
            quantized = attach_scheme(built, scheme, checkpoint_names(built, checkpoint.tensor_names()), dtype)
        return cls(config, checkpoint, plugin, capabilities, dtype, device, built, left_out, quantized)

    @property
    def trained_length(self) -> int | None:
        """The longest sequence that the model was trained for, where its config says."""
        config = self.checkpoint.hf_config.get_text_config()
        found = getattr(config, "max_position_embeddings", None) or getattr(config, "max_target_positions", None)
        pooling = self.model.ctx.pooling if pools(self.capabilities.tasks) else None
        known = [int(n) for n in (found, pooling.max_length if pooling is not None else None) if n]
        return min(known, default=None)

    @property
    def length(self) -> int:
        """The longest sequence that is asked for: the pool may have room for less."""
        return self.config.max_model_len or self.trained_length or DEFAULT_LENGTH

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.checkpoint.hf_config.get_text_config().hidden_size)


KNOWN_TASKS = ("generate", "transcription", *POOLING_TASKS)


def _refuse_what_it_cannot(plugin: ResolvedPlugin, capabilities: Capabilities) -> None:
    record, tasks = plugin.architecture, capabilities.tasks
    if record.kind == "component":
        raise InvalidConfigError(
            f"{record.name} ({plugin.describe()}) is a component that other models are built from, not a model",
            param="model",
        )
    if not set(KNOWN_TASKS) & set(tasks):
        raise InvalidConfigError(
            f"{record.name} ({plugin.describe()}) offers {', '.join(tasks) or 'no task'}; this engine can do "
            f"{', '.join(KNOWN_TASKS)}",
            param="model",
        )


def _refuse_unknown_modalities(config: EngineConfig, capabilities: Capabilities) -> None:
    """A limit of what no model takes is a slip; one of what this model does not take may be meant for others beside it."""
    known = {*capabilities.modalities, *HF_DATA_NAMES}
    for modality in config.limit_mm_per_prompt:
        if modality not in known:
            near = difflib.get_close_matches(modality, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            raise InvalidConfigError(
                f"limit_mm_per_prompt has a limit of {modality!r}, which is no modality{hint}",
                param="limit_mm_per_prompt",
            )

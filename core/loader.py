"""From a checkpoint to a model that is filled, once and completely."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sdk.context import ModelContext
from sdk.interfaces import Model
from sdk.pooling import supports_pooling
from sdk.sentence_folder import read_pooling
from sdk.spec import Role
from sdk.weights import load_weights_report, missing_parameters, raise_for_missing, raise_for_unexpected

from .checkpoint import Checkpoint
from .config import EngineConfig
from .errors import EngineError, InvalidConfigError, PluginContractError, WeightsError
from .plugins import Catalog, ResolvedPlugin
from .plugins.options import make_options
from .quantization.attach import Quantized, parameter_dtype
from .quantization.finish import Finisher
from .text_only import LeftOut

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _EmptyOnMeta(TorchFunctionMode):
    """Parameters are made by `torch.empty`: those go to the meta device, so that nothing is allocated twice; buffers,
    which are computed, stay real."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            tensor: Tensor | None = kwargs.get("tensor")
            if (
                tensor is not None and tensor.is_meta
            ):  # nothing is there to be filled, and torch would import its compiler for it
                return tensor
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def resolve_dtype(config: EngineConfig, checkpoint: Checkpoint) -> torch.dtype:
    """What the parameters will be; see `EngineConfig.dtype`."""
    if config.dtype != "auto":
        return DTYPES[config.dtype]
    view = checkpoint.view
    said = str(view.get("dtype") or view.text.get("dtype") or "float32").removeprefix("torch.")
    if said == "float16" and resolve_device(config).type == "cpu":
        return torch.bfloat16
    return DTYPES.get(said, torch.float32)


def resolve_device(config: EngineConfig) -> torch.device:
    """Where the model runs."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InvalidConfigError(
            "device='cuda' was asked for, but torch sees no CUDA device; use device='cpu'", param="device"
        )
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def make_resolver(plugins: Mapping[str, str]) -> Callable[[Any, Role], tuple[Any, ModelContext]]:
    """How `ctx.build` finds a part's class: by the part's architecture, or by its model_type and role."""

    def resolve(config: Any, role: Role) -> tuple[Any, ModelContext]:
        catalog = Catalog.installed()
        names = getattr(config, "architectures", None) or ()
        if names:
            plugin = catalog.resolve(names[0], pins=plugins)
        else:
            plugin = catalog.resolve_model_type(config.model_type, role, pins=plugins)
        return plugin.load("model"), ModelContext(hf_config=config, options=make_options(plugin, {}))

    return resolve


def build_model(plugin: ResolvedPlugin, config: EngineConfig, checkpoint: Checkpoint, dtype: torch.dtype) -> Model:
    """Build the model with its parameters on the meta device.

    Raises:
        PluginContractError: The constructor fails, or leaves a buffer on the meta device.
    """
    model = build_module(plugin, config, checkpoint, dtype)
    if not isinstance(model, Model):
        raise PluginContractError(
            f"{plugin.describe()}: {type(model).__qualname__} is no sdk.Model", plugin=plugin.describe()
        )
    return model


def build_module(plugin: ResolvedPlugin, config: EngineConfig, checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """`build_model`, for components as well."""
    cls = plugin.load("model")
    options = make_options(plugin, config.plugin_options)
    resolver = make_resolver(config.plugins)
    reads_pooling = supports_pooling(cls) or config.task == "embed"
    pooling = read_pooling(checkpoint.folder) if reads_pooling else None
    context = ModelContext(checkpoint.hf_config, dtype, options, resolver, pooling)
    try:
        with _EmptyOnMeta():
            model: nn.Module = cls(ctx=context)
    except EngineError:
        raise
    except Exception as e:
        raise PluginContractError(
            f"{plugin.describe()}: building {cls.__qualname__} failed: {type(e).__name__}: {e}",
            plugin=plugin.describe(),
        ) from e
    for name, buffer in model.named_buffers():
        if buffer.is_meta:
            raise PluginContractError(
                f"{plugin.describe()}: buffer {name!r} was made by torch.empty and never computed; fill it in __init__",
                plugin=plugin.describe(),
            )
    return model.eval()


def materialize(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter memory; tied parameters stay one."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                kind = parameter_dtype(parameter, dtype)
                # Not `empty_like`: of a meta tensor it is written in Python, and imports torch's symbolic shapes and sympy.
                made[id(parameter)] = nn.Parameter(
                    torch.empty(parameter.shape, dtype=kind, device=device), requires_grad=False
                )
            setattr(module, name, made[id(parameter)])
    model.to(device)


def fill_model(
    model: Model,
    plugin: ResolvedPlugin,
    config: EngineConfig,
    checkpoint: Checkpoint,
    left_out: LeftOut,
    quantized: Quantized | None = None,
) -> None:
    """Stream the checkpoint into the model; every parameter must be filled, every tensor used or dropped on purpose. Layers that
    are quantized are made smaller as they are filled.

    Raises:
        WeightsError: See its subclasses; the names are listed.
    """
    offered: list[str] = []
    finisher = Finisher(model, quantized)

    def stream() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in checkpoint.tensors(
            skip=left_out.covers, check=config.check_weights, quiet=config.disable_progress
        ):
            offered.append(name)
            yield name, tensor

    if type(model).load_weights is Model.load_weights:
        report = load_weights_report(model, stream(), on_filled=finisher.filled)
        if config.strict_weights:
            raise_for_unexpected(model, report.unexpected)
        elif report.unexpected:
            logger.warning("ignored %d tensors that fit nothing: %s", len(report.unexpected), report.unexpected[:5])
        filled = report.filled
    else:
        try:
            filled = set(model.load_weights(stream()) or ())
        except EngineError:
            raise
        except Exception as e:
            raise WeightsError(f"{plugin.describe()}: load_weights failed: {type(e).__name__}: {e}") from e
        finisher.all_filled(filled)
    filled |= finisher.parameters
    if missing_parameters(model, filled):
        raise_for_missing(model, filled, offered)

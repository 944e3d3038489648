"""Which quantization scheme a model gets: the user's, or the checkpoint's own; within what the model's plugin allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdk.quantization import QuantizationConfig
from sdk.spec import Capabilities

from ..checkpoint import Checkpoint
from ..config import EngineConfig
from ..errors import EngineError, InvalidConfigError, PluginContractError, PluginMissingError
from ..plugins.faults import describe
from ..registry import QUANTIZATION

if TYPE_CHECKING:
    from ..plugins import ResolvedPlugin

METHOD = "quant_method"
STORED = "quantization_config"


def choose_scheme(
    config: EngineConfig, checkpoint: Checkpoint, plugin: ResolvedPlugin, capabilities: Capabilities
) -> QuantizationConfig | None:
    """The scheme to apply; None: the weights stay as they are.

    Raises:
        InvalidConfigError: The plugin does not work with it, the checkpoint is quantized in another way already, or its options
            make no sense.
        PluginError: Nobody brings the scheme, or the plugin that does cannot be used.
    """
    asked, stored = _asked(config), _stored(checkpoint)
    if asked is None and stored is None:
        return None
    values = stored if stored is not None else asked
    assert values is not None
    name = values[METHOD]
    if asked is not None and stored is not None and asked != {METHOD: name}:
        raise InvalidConfigError(
            f"quantization={config.quantization!r} was asked for, but this checkpoint is quantized already, with {name!r}; "
            "leave quantization out, or take a checkpoint in full precision",
            param="quantization",
        )
    allowed = capabilities.quantization
    if allowed is not None and name not in allowed:
        instead = f"it works with {', '.join(allowed)}" if allowed else "it works with none"
        raise InvalidConfigError(
            f"{plugin.architecture.name} ({plugin.describe()}) does not work with the quantization scheme {name!r}: {instead}",
            param="quantization",
        )
    return _made(_scheme(name, config, stored is not None), values)


def _asked(config: EngineConfig) -> Mapping[str, Any] | None:
    given = config.quantization
    if given is None:
        return None
    values = {METHOD: given} if isinstance(given, str) else dict(given)
    if not isinstance(values.get(METHOD), str) or not values[METHOD]:
        raise InvalidConfigError(
            f'quantization is a name, such as "int8", or a mapping with "{METHOD}" and its options, not {given!r:.80}',
            param="quantization",
        )
    return values


def _stored(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """What config.json says, of the whole model or of its language model."""
    raw = checkpoint.raw_config
    inner = raw.get("text_config")
    found = raw.get(STORED) or (inner.get(STORED) if isinstance(inner, dict) else None)
    if not found:
        return None
    if not isinstance(found, dict) or not isinstance(found.get(METHOD), str):
        raise InvalidConfigError(f"config.json: {STORED} must be an object that names its {METHOD}", param=STORED)
    return found


def _scheme(name: str, config: EngineConfig, stored: bool) -> type[QuantizationConfig]:
    try:
        found: type[QuantizationConfig] = QUANTIZATION.resolve(name, config.plugins)
    except PluginMissingError as e:
        where = f"the checkpoint's config.json: {STORED}: " if stored else ""
        raise InvalidConfigError(f"{where}{e.message}", param="quantization") from e
    return found


def _made(scheme: type[QuantizationConfig], values: Mapping[str, Any]) -> QuantizationConfig:
    try:
        return scheme.from_config(values)
    except EngineError:
        raise
    except Exception as e:
        raise PluginContractError(
            f"the quantization scheme {scheme.get_name()!r}: from_config raised {describe(e)}"
        ) from e

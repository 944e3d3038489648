"""The SDK: everything the author of a plugin writes against. Importing it loads no torch; names resolve when used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import attach

__version__ = "1.0.0"

__getattr__, __dir__, _names = attach(
    __name__,
    {
        "API_VERSION": "spec",
        "Architecture": "spec",
        "Capabilities": "spec",
        "CausalLM": "causal_lm",
        "ConfigView": "config_view",
        "Encoder": "interfaces",
        "Model": "interfaces",
        "ModelContext": "context",
        "Pooler": "pooling",
        "Pooling": "pooling",
        "QuantizationConfig": "quantization",
        "QuantizeMethod": "quantization",
        "SpeechToTextConfig": "transcription",
        "SupportsEncoderDecoder": "interfaces",
        "SupportsMultiModal": "interfaces",
        "SupportsPooling": "pooling",
        "SupportsTranscription": "transcription",
        "WeightMap": "weights",
        "errors": "errors",
        "helper": "_contract",
        "hookimpl": "hooks",
        "layers": "layers",
        "multimodal": "multimodal",
        "quantization": "quantization",
        "testing": "testing",
        "transcription": "transcription",
        "weights": "weights",
    },
)
__all__ = _names

if TYPE_CHECKING:
    from . import errors as errors
    from . import layers as layers
    from . import multimodal as multimodal
    from . import quantization as quantization
    from . import testing as testing
    from . import transcription as transcription
    from . import weights as weights
    from ._contract import helper as helper
    from .causal_lm import CausalLM as CausalLM
    from .config_view import ConfigView as ConfigView
    from .context import ModelContext as ModelContext
    from .hooks import hookimpl as hookimpl
    from .interfaces import Encoder as Encoder
    from .interfaces import Model as Model
    from .interfaces import SupportsEncoderDecoder as SupportsEncoderDecoder
    from .interfaces import SupportsMultiModal as SupportsMultiModal
    from .pooling import Pooler as Pooler
    from .pooling import Pooling as Pooling
    from .pooling import SupportsPooling as SupportsPooling
    from .quantization import QuantizationConfig as QuantizationConfig
    from .quantization import QuantizeMethod as QuantizeMethod
    from .spec import API_VERSION as API_VERSION
    from .spec import Architecture as Architecture
    from .spec import Capabilities as Capabilities
    from .transcription import SpeechToTextConfig as SpeechToTextConfig
    from .transcription import SupportsTranscription as SupportsTranscription
    from .weights import WeightMap as WeightMap

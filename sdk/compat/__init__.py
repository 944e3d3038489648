"""Adapters for the spellings of older guides and of vLLM, so that a model written for them is ported by changing imports.

refused.py      names that have nothing to stand for here, and what to write instead
config.py       `VllmConfig`: what a ported constructor reads          model.py    a ported class becomes an `sdk.Model`
registry.py     ModelRegistry, MULTIMODAL_REGISTRY, INPUT_REGISTRY     layers.py   layers that return (output, bias)
auto_weights.py loading by parts, as today's models do       state_layers.py  mixers that write to `output`
processing.py   former hooks of processors, as they were               mappers.py  input mappers, dummy data, input processors
ported.py       `"sdk.compat.ported:module.Class"`, for a plugin's record and for worker processes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import attach
from .refused import REFUSED, refuse

_getattr, __dir__, _names = attach(
    __name__,
    {
        "AphroditeConfig": "config",
        "AutoWeightsLoader": "auto_weights",
        "BaseDummyInputsBuilder": "processing",
        "BaseMultiModalProcessor": "processing",
        "BaseProcessingInfo": "processing",
        "DummyData": "inputs",
        "INPUT_REGISTRY": "registry",
        "ImageFeatureData": "inputs",
        "ImagePixelData": "inputs",
        "InputContext": "inputs",
        "LLMInputs": "inputs",
        "MULTIMODAL_REGISTRY": "registry",
        "ModelConfig": "config",
        "ModelRegistry": "registry",
        "ProcessorInputs": "inputs",
        "SequenceData": "inputs",
        "SupportsMultiModal": "model",
        "SupportsVision": "model",
        "VllmConfig": "config",
        "WeightsMapper": "auto_weights",
        "default_weight_loader": "weights",
        "init_aphrodite_registered_model": "model",
        "init_vllm_registered_model": "model",
        "layers": "layers",
        "maybe_prefix": "model",
        "merge_multimodal_embeddings": "processing",
        "token_inputs": "inputs",
    },
)
__all__ = _names


def __getattr__(name: str) -> Any:
    if name in REFUSED:
        refuse(name)
    return _getattr(name)


if TYPE_CHECKING:
    from . import layers as layers
    from .auto_weights import AutoWeightsLoader as AutoWeightsLoader
    from .auto_weights import WeightsMapper as WeightsMapper
    from .config import AphroditeConfig as AphroditeConfig
    from .config import ModelConfig as ModelConfig
    from .config import VllmConfig as VllmConfig
    from .inputs import DummyData as DummyData
    from .inputs import ImageFeatureData as ImageFeatureData
    from .inputs import ImagePixelData as ImagePixelData
    from .inputs import InputContext as InputContext
    from .inputs import LLMInputs as LLMInputs
    from .inputs import ProcessorInputs as ProcessorInputs
    from .inputs import SequenceData as SequenceData
    from .inputs import token_inputs as token_inputs
    from .model import SupportsMultiModal as SupportsMultiModal
    from .model import SupportsVision as SupportsVision
    from .model import init_aphrodite_registered_model as init_aphrodite_registered_model
    from .model import init_vllm_registered_model as init_vllm_registered_model
    from .model import maybe_prefix as maybe_prefix
    from .processing import BaseDummyInputsBuilder as BaseDummyInputsBuilder
    from .processing import BaseMultiModalProcessor as BaseMultiModalProcessor
    from .processing import BaseProcessingInfo as BaseProcessingInfo
    from .processing import merge_multimodal_embeddings as merge_multimodal_embeddings
    from .registry import INPUT_REGISTRY as INPUT_REGISTRY
    from .registry import MULTIMODAL_REGISTRY as MULTIMODAL_REGISTRY
    from .registry import ModelRegistry as ModelRegistry
    from .weights import default_weight_loader as default_weight_loader

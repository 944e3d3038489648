"""Which name of vLLM and Aphrodite is which of ours. Facts about names; the rewriting is in rewrite.py."""

from __future__ import annotations

from typing import Final

import sdk.compat
import sdk.compat.layers
import sdk.multimodal
from sdk.compat.refused import REFUSED

PACKAGES: Final = ("vllm", "aphrodite")
"""Whose modules are rewritten; relative imports are theirs as well, since the file comes out of their tree."""

_COMPAT_LAYERS: Final = (
    *("Attention", "ColumnParallelLinear", "GeluAndMul", "LogitsProcessor", "MergedColumnParallelLinear"),
    *("MambaMixer", "MambaMixer2"),
    *("ParallelLMHead", "QKVParallelLinear", "RMSNorm", "ReplicatedLinear", "RotaryEmbedding", "RowParallelLinear"),
    *("SiluAndMul", "VocabParallelEmbedding", "get_act_fn", "get_rope"),
)
HOMES: Final[dict[str, str]] = {
    **dict.fromkeys(sdk.multimodal.__all__, "sdk.multimodal"),
    **dict.fromkeys([name for name in sdk.compat.__all__ if name != "layers"], "sdk.compat"),
    **dict.fromkeys(_COMPAT_LAYERS, "sdk.compat.layers"),
    "IntermediateTensors": "sdk.interfaces",
    "SupportsTranscription": "sdk.transcription",
    "SpeechToTextConfig": "sdk.speech",
}
"""Name → the module of ours that has it."""

RENAMED: Final = {
    "embed_multimodal": "get_multimodal_embeddings",
    "embed_input_ids": "get_input_embeddings",
    "get_multimodal_embedding": "get_multimodal_embeddings",
    "get_vision_embeddings": "get_multimodal_embeddings",
}
"""Hooks under other names."""

REMOVED_BASES: Final = frozenset({
    *("SupportsPP", "SupportsLoRA", "SupportsQuant", "SupportsEagle", "SupportsEagle3", "SupportsEncoderCudaGraph"),
    *("IsAttentionFree", "IsHybrid", "HasInnerState", "SupportsMambaPrefixCaching"),
    *("SupportsV0Only", "SupportsMultiModalPruning", "EagleModelMixin", "MixtureOfExperts"),
})  # fmt: skip
"""Interfaces that say of a model what the engine does from outside, or what this version does not do."""

REMOVED_DECORATORS: Final = frozenset({"support_torch_compile"})

REMOVED_ARGUMENTS: Final = frozenset({"kv_caches", "kv_cache", "attn_metadata", "sampling_metadata"})
"""Arguments that no function has any more."""

CONSTANTS: Final[dict[str, str]] = {
    "get_tensor_model_parallel_world_size()": "1",
    "get_tensor_model_parallel_rank()": "0",
    "get_pp_group().is_first_rank": "True",
    "get_pp_group().is_last_rank": "True",
    "get_pp_group().world_size": "1",
}
"""Expressions whose value no model needs to know: it is written for one device, and split from outside."""

HANDLED: Final = frozenset({
    *("get_tensor_model_parallel_world_size", "get_tensor_model_parallel_rank", "get_pp_group", "make_layers"),
    *("PPMissingLayer", "is_pp_missing_parameter", "make_empty_intermediate_tensors_factory", "init_logger"),
    *("maybe_remap_kv_scale_name", "get_sampler", "Sampler", "SamplerOutput", "SamplingMetadata", "AttentionMetadata"),
    *("KVCache", "CacheConfig", "QuantizationConfig", "AttentionType"),
    *REMOVED_BASES, *REMOVED_DECORATORS,
})  # fmt: skip
"""Names that go with the code that used them."""

TYPES_ONLY: Final = frozenset({"CacheConfig", "QuantizationConfig", "AttentionMetadata", "KVCache", "SamplingMetadata"})
"""Names that stand in annotations alone; there they become `Any`."""


def advice(name: str) -> str:
    """What to write in the place of a name that has no counterpart."""
    return REFUSED.get(
        name, "write it in the plugin; what another plugin knows (a tower, a language model) comes from ctx.build"
    )

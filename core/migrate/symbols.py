"""Which name of vLLM and Aphrodite is which of ours. Facts about names; the rewriting is in rewrite.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import sdk.compat
import sdk.compat.layers
import sdk.multimodal
from sdk import _contract
from sdk.compat.config import ModelConfig, VllmConfig
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

REMOVED_ARGUMENTS: Final[dict[str, str]] = {
    **dict.fromkeys(("kv_caches", "kv_cache"), REFUSED["KVCache"]),
    "attn_metadata": REFUSED["AttentionMetadata"],
    "sampling_metadata": REFUSED["SamplingMetadata"],
}
"""Arguments that no function has any more → what to do without."""

FORMER_HOOKS: Final[dict[str, str]] = {
    **{
        name: said
        for name, said in _contract.FORMER_HOOKS.items()
        if name not in {*_contract.ADAPTED_HOOKS, *RENAMED, "sample"}
    },
    **dict.fromkeys(
        (
            *("get_mamba_state_shape_from_config", "get_mamba_state_dtype_from_config", "get_mamba_state_copy_func"),
            *("copy_inputs_before_cuda_graphs", "get_seqlen_agnostic_capture_inputs"),
        ),
        REFUSED["MambaCacheManager"],
    ),
    "get_image_feature": "write get_multimodal_embeddings(**media): the arguments are others",
}
"""Methods that another engine calls and this one does not → what to write now. What becomes of `sample` depends on its class."""

CONSTANTS: Final[dict[str, str]] = {
    "get_tensor_model_parallel_world_size()": "1",
    "get_tensor_model_parallel_rank()": "0",
    "get_pp_group().is_first_rank": "True",
    "get_pp_group().is_last_rank": "True",
    "get_pp_group().world_size": "1",
    **{
        f"AttentionType.{kind.upper()}": f'"{kind}"'
        for kind in ("decoder", "encoder", "encoder_only", "encoder_decoder")
    },
}
"""Expressions whose value is known: a model is written for one device, and split from outside; kinds of attention are texts."""

_CONFIG: Final[Any] = SimpleNamespace(hf_config=None, dtype=None)
CONFIG_MEMBERS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("vllm_config", "aphrodite_config"), frozenset(dir(VllmConfig(_CONFIG)))),
    "model_config": frozenset(dir(ModelConfig(None))),
}
"""What the objects that bear these names have."""

HANDLED: Final = frozenset({
    *("get_tensor_model_parallel_world_size", "get_tensor_model_parallel_rank", "get_pp_group", "make_layers"),
    *("PPMissingLayer", "is_pp_missing_parameter", "make_empty_intermediate_tensors_factory", "init_logger"),
    *("maybe_remap_kv_scale_name", "get_sampler", "Sampler", "SamplerOutput", "SamplingMetadata", "AttentionMetadata"),
    *("KVCache", "CacheConfig", "QuantizationConfig", "AttentionType"),
    *REMOVED_BASES, *REMOVED_DECORATORS,
})  # fmt: skip
"""Names that go with the code that used them."""

TYPES_ONLY: Final = frozenset({
    *("AttentionMetadata", "AttentionType", "CacheConfig", "KVCache", "QuantizationConfig", "SamplingMetadata"),
})  # fmt: skip
"""Names that stand in annotations alone; there they become `Any`."""


def advice(name: str) -> str:
    """What to write in the place of a name that has no counterpart."""
    other = (
        "leave it out: the engine does it from outside, and no code of the model says so"
        if name in HANDLED
        else "write it in the plugin; what another plugin knows (a tower, a language model) comes from ctx.build"
    )
    return REFUSED.get(name, other)

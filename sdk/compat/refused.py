"""Names of older guides and of other engines that have nothing to stand for here, each with what to write instead."""

from __future__ import annotations

from typing import NoReturn

from ..errors import PluginContractError

_ATTENTION = (
    "use sdk.compat.layers.Attention(num_heads, head_size, scale, num_kv_heads) and call it as attn(q, k, v): it keeps "
    "its own keys and values"
)
_METADATA = "attention layers know the step's layout; take the argument out of every forward"
_STATES = (
    "layers with states say themselves what they keep; take get_mamba_state_shape_from_config, its like and every cache of "
    "states out"
)
_SAMPLING = "sampling is the engine's; end the model at compute_logits(hidden_states)"
_WITHOUT = "leave it out: the engine does it from outside, and no code of the model says so"

REFUSED = {
    "PagedAttention": _ATTENTION,
    "PagedAttentionWithRoPE": f"{_ATTENTION}; rotate q and k before it, with sdk.compat.layers.get_rope",
    "PagedAttentionWithALiBi": f"{_ATTENTION}, with alibi_slopes=",
    "AttentionMetadata": _METADATA,
    "InputMetadata": _METADATA,
    "ForwardContext": _METADATA,
    "KVCache": "attention layers keep their own state; take kv_caches out of every forward",
    **dict.fromkeys(
        ("MambaCacheManager", "MambaCacheParams", "MambaStateShapeCalculator", "MambaStateDtypeCalculator"), _STATES
    ),
    **dict.fromkeys(
        ("IsHybrid", "IsAttentionFree", "HasInnerState", "SupportsMambaPrefixCaching"),
        f"take the base out: {_STATES}",
    ),
    "SamplerOutput": f"{_SAMPLING}, and let forward return hidden states (tokens, hidden)",
    "Sampler": _SAMPLING,
    "get_sampler": _SAMPLING,
    "SamplingMetadata": _SAMPLING,
    "QuantizationConfig": "schemes are chosen by the engine, by a layer's name; pass quant_config on as it comes, or None",
    "CacheConfig": "pages are the engine's; pass cache_config on as it comes, or None",
    "LinearMethodBase": "schemes are chosen by the engine, by a layer's name; leave linear_method out",
    "support_torch_compile": _WITHOUT,
    "direct_register_custom_op": "call the kernel in a layer's forward: no step is traced, so nothing needs to be registered",
    "get_pp_group": f"pipeline stages: {_WITHOUT}",
    "make_layers": "write nn.ModuleList(Block(…) for _ in range(config.num_hidden_layers))",
    "get_tensor_model_parallel_rank": f"a rank: {_WITHOUT}; write -1 where a number of heads would stand",
    "get_tensor_model_parallel_world_size": f"a rank: {_WITHOUT}; write -1 where a number of heads would stand",
    "hf_model_weights_iterator": "load_weights(weights) is given pairs of name and tensor",
}
"""Name → what to write instead."""


class NotPortableError(PluginContractError, ImportError):
    """Something of another engine that no adapter can stand for; the message says how it is written here."""

    code = "not_portable"


def refuse(name: str) -> NoReturn:
    """Raise for one of `REFUSED`."""
    raise NotPortableError(f"sdk.compat has no {name}: {REFUSED[name]}")

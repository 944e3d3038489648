"""What the engine reads first: the three architectures and what each can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def llama_capabilities(config: ConfigView) -> Capabilities:
    """Full attention in every layer."""
    return Capabilities(attention=("full",))


def mistral_capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in every layer, unless the config sets it to null; 4096 where it does not say."""
    return Capabilities(attention=("full",) if config.get("sliding_window", 4096) is None else ("sliding",))


def qwen2_capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in the layers that `layer_types`, or `max_window_layers` before it, names."""
    if not config.get("use_sliding_window", False) or config.get("sliding_window", 4096) is None:
        return Capabilities(attention=("full",))
    layers = config.get("num_hidden_layers", 32)
    full_layers = min(config.get("max_window_layers", 28), layers)
    types = config.get("layer_types") or ["full_attention"] * full_layers + ["sliding_attention"] * (
        layers - full_layers
    )
    found = {"full_attention": "full", "sliding_attention": "sliding"}
    return Capabilities(attention=tuple(kind for name, kind in found.items() if name in types))


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    package = "engine_plugin_llama"
    return [
        Architecture(
            name=name,
            model=f"{package}.model:{name}",
            model_types=(model_type,),
            capabilities=f"{package}.plugin:{model_type}_capabilities",
            tiny=f"{package}.tiny:{model_type}",
            license="Apache-2.0",
            upstream=upstream,
        )
        for name, model_type, upstream in (
            ("LlamaForCausalLM", "llama", "https://arxiv.org/abs/2302.13971"),
            ("MistralForCausalLM", "mistral", "https://arxiv.org/abs/2310.06825"),
            ("Qwen2ForCausalLM", "qwen2", "https://arxiv.org/abs/2407.10671"),
        )
    ]

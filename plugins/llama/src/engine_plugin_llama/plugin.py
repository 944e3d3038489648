"""What the engine reads first: the four architectures and what each can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def llama_capabilities(config: ConfigView) -> Capabilities:
    """Full attention in every layer."""
    return Capabilities(attention=("full",))


def mistral_capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in the layers that `layer_types` names, in every layer where there is no such key; in none where the
    config sets the window to null. It is 4096 where the config does not say."""
    if config.get("sliding_window", 4096) is None:
        return Capabilities(attention=("full",))
    return Capabilities(attention=config.attention_kinds(["sliding_attention"]))


def qwen2_capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in the layers that `layer_types`, or `max_window_layers` before it, names."""
    if not config.get("use_sliding_window", False) or config.get("sliding_window", 4096) is None:
        return Capabilities(attention=("full",))
    layers = config.get("num_hidden_layers", 32)
    full_layers = min(config.get("max_window_layers", 28), layers)
    types = ["full_attention"] * full_layers + ["sliding_attention"] * (layers - full_layers)
    return Capabilities(attention=config.attention_kinds(types))


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    package = "engine_plugin_llama"
    return [
        Architecture(
            name=name,
            model=f"{package}.model:{model}ForCausalLM",
            model_types=(model_type,),
            capabilities=f"{package}.plugin:{model.lower()}_capabilities",
            tiny=f"{package}.tiny:{model_type}",
            license="Apache-2.0",
            upstream=upstream,
        )
        for name, model, model_type, upstream in (
            ("LlamaForCausalLM", "Llama", "llama", "https://arxiv.org/abs/2302.13971"),
            ("MistralForCausalLM", "Mistral", "mistral", "https://arxiv.org/abs/2310.06825"),
            ("MinistralForCausalLM", "Mistral", "ministral", "https://mistral.ai/news/ministraux"),
            ("Qwen2ForCausalLM", "Qwen2", "qwen2", "https://arxiv.org/abs/2407.10671"),
        )
    ]

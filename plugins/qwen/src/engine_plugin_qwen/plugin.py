"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in the layers that `layer_types`, or `max_window_layers` before it, names."""
    if not config.get("use_sliding_window", False) or config.get("sliding_window", 4096) is None:
        return Capabilities(attention=("full",))
    layers = config.get("num_hidden_layers", 32)
    full_layers = min(config.get("max_window_layers", 28), layers)
    types = ["full_attention"] * full_layers + ["sliding_attention"] * (layers - full_layers)
    return Capabilities(attention=config.attention_kinds(types))


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="Qwen3ForCausalLM",
            model="engine_plugin_qwen.model:Qwen3ForCausalLM",
            model_types=("qwen3",),
            capabilities="engine_plugin_qwen.plugin:capabilities",
            tiny="engine_plugin_qwen.tiny:qwen3",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2505.09388",
        )
    ]

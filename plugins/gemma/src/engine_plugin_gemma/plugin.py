"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in the layers that `layer_types` names, in every other one where there is no such key."""
    if config.get("sliding_window", 4096) is None:
        return Capabilities(attention=("full",))
    return Capabilities(attention=config.attention_kinds(["sliding_attention", "full_attention"]))


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="Gemma2ForCausalLM",
            model="engine_plugin_gemma.model:Gemma2ForCausalLM",
            model_types=("gemma2",),
            capabilities="engine_plugin_gemma.plugin:capabilities",
            tiny="engine_plugin_gemma.tiny:gemma2",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2408.00118",
        )
    ]

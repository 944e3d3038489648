"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in every layer where the config gives one."""
    return Capabilities(attention=("full",) if config.get("sliding_window") is None else ("sliding",))


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="MixtralForCausalLM",
            model="engine_plugin_mixtral.model:MixtralForCausalLM",
            model_types=("mixtral",),
            capabilities="engine_plugin_mixtral.plugin:capabilities",
            tiny="engine_plugin_mixtral.tiny:mixtral",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2401.04088",
        )
    ]

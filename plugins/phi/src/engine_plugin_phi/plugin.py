"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, ConfigView, hookimpl


def capabilities(config: ConfigView) -> Capabilities:
    """A sliding window in every layer where the config gives one. LongRoPE rotates a beginning by how long the whole is, so
    that equal beginnings need not share their keys."""
    rope = config.get("rope_parameters") or {}
    return Capabilities(
        attention=("full",) if config.get("sliding_window") is None else ("sliding",),
        prefix_caching=rope.get("rope_type", rope.get("type", "default")) == "default",
    )


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="Phi3ForCausalLM",
            model="engine_plugin_phi.model:Phi3ForCausalLM",
            model_types=("phi3",),
            capabilities="engine_plugin_phi.plugin:capabilities",
            tiny="engine_plugin_phi.tiny:phi3",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2404.14219",
        )
    ]

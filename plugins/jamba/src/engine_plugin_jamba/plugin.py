"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="JambaForCausalLM",
            model="engine_plugin_jamba.model:JambaForCausalLM",
            model_types=("jamba",),
            capabilities=Capabilities(attention=("full", "state-space"), prefix_caching=False),
            tiny="engine_plugin_jamba.tiny:jamba",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2403.19887",
        )
    ]

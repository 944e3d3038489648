"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, hookimpl


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="OPTForCausalLM",
            model="engine_plugin_opt.model:OPTForCausalLM",
            model_types=("opt",),
            tiny="engine_plugin_opt.tiny:opt",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2205.01068",
        )
    ]

"""What the engine reads first: the architecture and what it can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architecture of this plugin."""
    return [
        Architecture(
            name="Lfm2ForCausalLM",
            model="engine_plugin_lfm2.model:Lfm2ForCausalLM",
            model_types=("lfm2",),
            capabilities=Capabilities(attention=("full", "convolution"), prefix_caching=False),
            tiny="engine_plugin_lfm2.tiny:lfm2",
            license="Apache-2.0",
            upstream="https://huggingface.co/LiquidAI",
        )
    ]

"""What the engine reads first: the architectures and what they can do. Loads no torch."""

from __future__ import annotations

from sdk import Architecture, Capabilities, hookimpl

_STATES = Capabilities(attention=("state-space",), prefix_caching=False)


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    return [
        Architecture(
            name="MambaForCausalLM",
            model="engine_plugin_mamba.model:MambaForCausalLM",
            model_types=("mamba",),
            capabilities=_STATES,
            tiny="engine_plugin_mamba.tiny:mamba",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2312.00752",
        ),
        Architecture(
            name="Mamba2ForCausalLM",
            model="engine_plugin_mamba.model:Mamba2ForCausalLM",
            model_types=("mamba2",),
            capabilities=_STATES,
            tiny="engine_plugin_mamba.tiny:mamba2",
            license="Apache-2.0",
            upstream="https://arxiv.org/abs/2405.21060",
        ),
    ]

"""`VllmConfig` and `ModelConfig`: what a ported model's constructor and hooks read, made from what the SDK gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .refused import NotPortableError

if TYPE_CHECKING:
    from ..context import ModelContext

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """The model's own configuration.

    Attributes:
        hf_config: The parsed config.
        dtype: What floating-point parameters will be; None where a processor asks.
        model: Folder of the checkpoint, where a processor asks; empty otherwise.
        tokenizer: The HF tokenizer itself, where a processor asks.
    """

    hf_config: Any
    dtype: Any = None
    model: str = ""
    tokenizer: Any = None

    @property
    def hf_text_config(self) -> Any:
        """The language model's part of the config."""
        return self.hf_config.get_text_config()

    def get_hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.hf_text_config.hidden_size)


class VllmConfig:
    """Stands for the object that a ported constructor takes as `vllm_config` (or `aphrodite_config`).

    Attributes:
        model_config: The model's own configuration.
        ctx: The SDK's context, which `init_vllm_registered_model` builds parts by.
        cache_config, quant_config, lora_config: None: pages, quantization and adapters are the engine's.
    """

    def __init__(self, ctx: ModelContext) -> None:
        self.ctx = ctx
        self.model_config = ModelConfig(ctx.hf_config, ctx.dtype)
        self.cache_config = self.quant_config = self.lora_config = None

    def with_hf_config(self, hf_config: Any) -> VllmConfig:
        """The same for a part of the model."""
        from dataclasses import replace

        return VllmConfig(replace(self.ctx, hf_config=hf_config))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise NotPortableError(
            f"vllm_config.{name} has nothing to stand for here; there are model_config (hf_config, dtype), and cache_config, "
            "quant_config and lora_config, which are None"
        )


AphroditeConfig = VllmConfig

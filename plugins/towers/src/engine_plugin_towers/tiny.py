"""Small random towers, made offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdk.testing.tiny import also_spelled, save_tiny

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
"""Three layers over pictures of 32 by 32 pixels in 16 patches."""


def in_vision_model(name: str) -> str:
    """Names from before transformers 5, below `vision_model`."""
    return f"vision_model.{name}"


@also_spelled(before_transformers_5=in_vision_model)
def clip(seed: int, folder: Path) -> None:
    """CLIP."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    save_tiny(CLIPVisionModel(CLIPVisionConfig(**SHAPE, projection_dim=32)), folder, seed=seed)


@also_spelled(before_transformers_5=in_vision_model)
def siglip(seed: int, folder: Path) -> None:
    """SigLIP with its pooling head."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    save_tiny(SiglipVisionModel(SiglipVisionConfig(**SHAPE)), folder, seed=seed)


def pixtral(seed: int, folder: Path) -> None:
    """Pixtral's tower."""
    from transformers import PixtralVisionConfig, PixtralVisionModel

    save_tiny(PixtralVisionModel(PixtralVisionConfig(**SHAPE)), folder, seed=seed)


def idefics2(seed: int, folder: Path) -> None:
    """The tower of Idefics2, by itself."""
    from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

    save_tiny(Idefics2VisionTransformer(Idefics2VisionConfig(**SHAPE)), folder, seed=seed)

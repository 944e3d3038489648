"""A small random CLIP tower, made offline."""

from __future__ import annotations

from pathlib import Path

from sdk.testing.tiny import also_spelled, save_tiny


@also_spelled(before_transformers_5=lambda name: f"vision_model.{name}")
def clip(seed: int, folder: Path) -> None:
    """Three layers over pictures of 32 by 32 pixels in 16 patches."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=32,
    )
    save_tiny(CLIPVisionModel(config), folder, seed=seed)

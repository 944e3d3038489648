"""HF's FuyuProcessor made to run with image processing by PIL, and to take pictures of every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import FuyuImageProcessorPil


class FuyuImageProcessor(FuyuImageProcessorPil):
    """Cuts tensors: HF's processor hands them to HF's PIL image processor, which takes arrays alone (transformers 5.23)."""

    def patchify_image(self, image: Tensor, patch_size: Any = None) -> Tensor:
        """A picture's patches: `(1, channels, height, width) -> (1, patches, patch pixels)`."""
        patches = torch.as_tensor(super().patchify_image(np.asarray(image), patch_size))
        return patches.reshape(len(image), -1, patches.shape[-1])


def mend(processor: Any) -> Any:
    """Mend a `FuyuProcessor` that was loaded with backend "pil"; returns it.

    Besides the patches: HF passes grey pictures and those with transparency on as they are, which no checkpoint was trained
    with, unless the checkpoint says otherwise.
    """
    mended = FuyuImageProcessor.from_dict(processor.image_processor.to_dict())
    if mended.do_convert_rgb is None:
        mended.do_convert_rgb = True
    processor.image_processor = mended
    return processor

"""transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..cases import Ask
from .stopwatch import Stopwatch


class Transformers:
    """transformers' own generate, in batches of at most 64, with its fused attention; prompts of a batch have one length,
    so nothing is padded."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        config = json.loads((folder / "config.json").read_text())
        self.torch = torch
        self.model: Any = getattr(transformers, config["architectures"][0]).from_pretrained(
            folder, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        self.model.eval().generation_config.eos_token_id = None
        # The plain loop over tokens, also where a model brings one of its own around it.
        self.write = transformers.GenerationMixin.generate
        self.watch = Stopwatch()
        self.parts = self.watch.parts
        self.image_token, self.patches = int(config.get("image_token_index", 0)), int(config.get("image_seq_length", 0))
        self.images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil") if self.patches else None
        self.sounds = None
        if config["model_type"] == "whisper":
            self.sounds = self.watch.watched("input_s", transformers.AutoFeatureExtractor.from_pretrained(folder))
            encoder = self.model.get_encoder()
            encoder.forward = self.watch.watched("encoder_s", encoder.forward)

    def generate(self, asks: list[Ask]) -> None:
        """See `benchmarks.cases.System`."""
        self.parts.clear()
        for i in range(0, len(asks), 64):
            self._batch(asks[i : i + 64])

    def _batch(self, asks: list[Ask]) -> None:
        torch, extra = self.torch, {}
        ids = [a.ids for a in asks]
        if self.images is not None:
            ids = [[x[0]] * self.patches + x[1:] for x in ids]
            pixels = self.images([a.image for a in asks], return_tensors="pt")["pixel_values"]
            extra["pixel_values"] = pixels.to(torch.bfloat16)
        inputs = torch.tensor(ids)
        if self.sounds is not None:
            made = self.sounds([a.audio for a in asks], sampling_rate=16_000, return_tensors="pt")
            extra |= {"input_features": made.input_features.to(torch.bfloat16), "decoder_input_ids": inputs}
        else:
            extra |= {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
        with torch.inference_mode():
            out = self.write(self.model, do_sample=False, max_new_tokens=asks[0].new_tokens, **extra)
        assert out.shape[1] == inputs.shape[1] + asks[0].new_tokens

"""This engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..cases import Ask
from .held import Held
from .stopwatch import Stopwatch


class Ours:
    """`core.LLM`."""

    quantization: str | None = None

    def __init__(self, folder: Path) -> None:
        from core import LLM, SamplingParams

        self.params = SamplingParams
        longest = json.loads((folder / "config.json").read_text()).get("max_target_positions", 4096)
        self.llm = LLM(
            str(folder), dtype="bfloat16", quantization=self.quantization, max_num_seqs=256, max_model_len=longest
        )
        engine, watch = self.llm.engine, Stopwatch()
        self.image_token = int(getattr(engine.checkpoint.hf_config, "image_token_index", 0))
        self.parts, self.held = watch.parts, Held(engine).figures
        engine.inputs.process = watch.watched("input_s", engine.inputs.process)  # type: ignore[method-assign]
        engine.runner.encoder.encode = watch.watched("encoder_s", engine.runner.encoder.encode)  # type: ignore[method-assign]

    def generate(self, asks: list[Ask]) -> None:
        """See `benchmarks.cases.System`."""
        self.parts.clear()
        prompts = [{"prompt_token_ids": a.ids, "multi_modal_data": _media(a)} for a in asks]
        params = [self.params(temperature=0.0, ignore_eos=True, max_tokens=a.new_tokens) for a in asks]
        outputs = self.llm.generate(prompts, params, use_progress=False)
        assert [len(o.outputs[0].token_ids) for o in outputs] == [a.new_tokens for a in asks]


def _media(ask: Ask) -> dict[str, Any]:
    if ask.audio is not None:
        return {"audio": (ask.audio, 16_000)}
    return {"image": ask.image} if ask.image is not None else {}


class OursInt8(Ours):
    """The same with weights in 8 bits."""

    quantization = "int8"

"""The systems that are compared, each in a process of its own so that their thread pools do not meet."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .cases import CASES, Ask, Figures


class Stopwatch:
    """Seconds spent in the parts of a system, which are wrapped from outside."""

    def __init__(self) -> None:
        self.parts: Figures = defaultdict(float)

    def watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its time counts for the part of this name."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.parts[name] += time.perf_counter() - start

        return timed


class Ours:
    """This engine."""

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
        self.parts = watch.parts
        engine.inputs.process = watch.watched("input_s", engine.inputs.process)  # type: ignore[method-assign]
        engine.runner.encoder.encode = watch.watched("encoder_s", engine.runner.encoder.encode)  # type: ignore[method-assign]

    def generate(self, asks: list[Ask]) -> None:
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


SYSTEMS = {"ours": Ours, "transformers": Transformers}
"""What is compared unless others are named."""
OTHERS = {"ours-int8": OursInt8}


def _serve(connection: Connection, name: str, folder: Path) -> None:
    system = {**SYSTEMS, **OTHERS}[name](folder)
    vocab = json.loads((folder / "config.json").read_text())
    size = int(vocab.get("vocab_size") or vocab["text_config"]["vocab_size"])
    connection.send("ready")
    while (message := connection.recv()) is not None:
        case, seed = message
        connection.send(CASES[case].measure(system, np.random.default_rng(seed), size))


class Worker:
    """One system with one model, in a process of its own; `run` measures a case once."""

    def __init__(self, name: str, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, name, folder), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def run(self, case: str, seed: int) -> Figures:
        self.connection.send((case, seed))
        figures: Figures = self.connection.recv()
        return figures

    def close(self) -> None:
        self.connection.send(None)
        self.process.join()

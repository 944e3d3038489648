"""The systems that are compared, each in a process of its own so that their thread pools do not meet."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .cases import CASES, Ask, Figures


class Ours:
    """This engine."""

    def __init__(self, folder: Path) -> None:
        from core import LLM, SamplingParams

        self.params = SamplingParams
        self.llm = LLM(str(folder), dtype="bfloat16", max_num_seqs=256, max_model_len=4096)
        self.image_token = int(getattr(self.llm.engine.checkpoint.hf_config, "image_token_index", 0))

    def generate(self, asks: list[Ask]) -> None:
        prompts = [
            {"prompt_token_ids": a.ids, "multi_modal_data": {"image": a.image} if a.image is not None else {}}
            for a in asks
        ]
        params = [self.params(temperature=0.0, ignore_eos=True, max_tokens=a.new_tokens) for a in asks]
        outputs = self.llm.generate(prompts, params, use_progress=False)
        assert [len(o.outputs[0].token_ids) for o in outputs] == [a.new_tokens for a in asks]


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
        self.image_token, self.patches = int(config.get("image_token_index", 0)), int(config.get("image_seq_length", 0))
        self.images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil") if self.patches else None

    def generate(self, asks: list[Ask]) -> None:
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
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=False,
                max_new_tokens=asks[0].new_tokens,
                **extra,
            )
        assert out.shape[1] == inputs.shape[1] + asks[0].new_tokens


SYSTEMS = {"ours": Ours, "transformers": Transformers}


def _serve(connection: Connection, name: str, folder: Path) -> None:
    system = SYSTEMS[name](folder)
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

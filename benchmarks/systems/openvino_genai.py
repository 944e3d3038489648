"""OpenVINO GenAI: its continuous-batching pipeline for text and pictures, its Whisper pipeline for speech.

Its environment: `pip install openvino-genai optimum-intel pillow`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..cases import Ask

TASKS = {
    "llama": "text-generation-with-past",
    "llava": "image-text-to-text",
    "whisper": "automatic-speech-recognition-with-past",
}
"""model_type → what the converter calls its task."""


class OpenVino:
    """bfloat16 arithmetic, weights kept in 16 bits. Speech is taken one clip at a time: its pipeline knows no batches."""

    weights = "fp16"

    def __init__(self, folder: Path) -> None:
        import openvino
        import openvino_genai

        self.tensor, self.genai = openvino.Tensor, openvino_genai
        config = json.loads((folder / "config.json").read_text())
        self.image_token, self.parts = int(config.get("image_token_index", 0)), {}
        self.patches = int(config.get("image_seq_length", 0))
        converted = str(_converted(folder, TASKS[config["model_type"]], self.weights))
        properties = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": os.cpu_count()}
        self.hears, self.tokenizer = config["model_type"] == "whisper", None
        if self.hears:
            self.pipeline = openvino_genai.WhisperPipeline(converted, "CPU", **properties)
            return
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs, scheduler.max_num_batched_tokens = 4, 256, 2048
        scheduler.dynamic_split_fuse = scheduler.enable_prefix_caching = True
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(converted, scheduler, "CPU", properties)
        if self.image_token:
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def generate(self, asks: list[Ask]) -> None:
        """See `benchmarks.cases.System`."""
        if self.hears:
            for ask in asks:
                self._hear(ask)
        elif self.tokenizer is not None:
            self._see(asks)
        else:
            configs = [self._config(self.genai.GenerationConfig(), ask) for ask in asks]
            out = self.pipeline.generate([self.tensor(np.array([a.ids], dtype=np.int64)) for a in asks], configs)
            assert [len(o.m_generation_ids[0]) for o in out] == [a.new_tokens for a in asks]

    def _config(self, config: Any, ask: Ask) -> Any:
        config.max_new_tokens = config.min_new_tokens = ask.new_tokens
        config.ignore_eos = True
        return config

    def _hear(self, ask: Ask) -> None:
        config = self._config(self.pipeline.get_generation_config(), ask)
        config.language, config.task, config.return_timestamps = "<|en|>", "transcribe", False
        out = self.pipeline.generate(ask.audio.tolist(), config)
        assert out.perf_metrics.get_num_generated_tokens() >= ask.new_tokens

    def _see(self, asks: list[Ask]) -> None:
        """Pictures are taken with text alone: about as many tokens as were asked for, once the ids are text."""
        assert self.tokenizer is not None
        texts, configs = [], []
        for ask in asks:
            ids = self.tokenizer.encode(self.tokenizer.decode(ask.ids[1:])).ids[: len(ask.ids) - 1]
            texts.append(self.tokenizer.decode(ids))
            configs.append(self._config(self.genai.GenerationConfig(), ask))
            configs[-1].apply_chat_template = False
        images = [[self.tensor(np.asarray(ask.image)[None])] for ask in asks]
        out = self.pipeline.generate(texts, images=images, generation_config=configs)
        metrics, asked = out[0].perf_metrics, self.patches + len(asks[0].ids)
        assert metrics.get_num_generated_tokens() >= asks[0].new_tokens
        assert 0.9 < metrics.get_num_input_tokens() / asked < 1.1


class OpenVinoInt8(OpenVino):
    """Weights in 8 bits."""

    weights = "int8"


def _converted(folder: Path, task: str, weights: str) -> Path:
    """The checkpoint in OpenVINO's form, beside the original; made if it is not there yet."""
    out = folder.with_name(f"{folder.name}-openvino-{weights}")
    if out.is_dir():
        return out
    made = out.with_name(f"{out.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", str(folder)]
    subprocess.run([*command, "--task", task, "--weight-format", weights, str(made)], check=True)
    for name in ("preprocessor_config.json", "generation_config.json"):
        if (folder / name).is_file():
            shutil.copy(folder / name, made)
    return made.rename(out)

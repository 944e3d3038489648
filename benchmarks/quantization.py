"""What quantization costs in exactness: logits beside float32, answers of the demo model (`python -m benchmarks.quantization`).

Every row is the same checkpoint in bfloat16 with one scheme; the first is bfloat16 itself. `error` is the root mean square of the
logits' difference to float32 as a share of their spread, `same token` how often the likeliest token is the same, `divergence` the
mean Kullback-Leibler divergence in bits.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core import LLM, SamplingParams
from core.runtime import OpenModel

from .models import model_folder

ROOT = Path(__file__).parents[1]
SCHEMES: dict[str, Any] = {
    "bfloat16": None,
    "int8": "int8",
    "int8, head as it is": {"quant_method": "int8", "lm_head": False},
    "int8_weight_only": "int8_weight_only",
}


def logits(folder: str, prompts: list[list[int]], **options: Any) -> Tensor:
    """Of every place of every prompt."""
    with LLM(folder, max_model_len=512, kv_cache_bytes=2**28, disable_progress=True, **options) as llm:
        return torch.cat(OpenModel(llm).logits([{"prompt_token_ids": p} for p in prompts]))


def exactness(folder: str, schemes: Iterable[str]) -> None:
    """A table of errors beside float32."""
    vocab = int(json.loads((Path(folder) / "config.json").read_text())["vocab_size"])
    prompts = [list(map(int, np.random.default_rng(i).integers(10, vocab - 10, 128))) for i in range(4)]
    truth = logits(folder, prompts, dtype="float32")
    print("| scheme | error | same token | divergence |\n|---|---|---|---|")
    for name in schemes:
        found = logits(folder, prompts, dtype="bfloat16", quantization=SCHEMES[name])
        error = float((found - truth).pow(2).mean().sqrt() / truth.std())
        same = float((found.argmax(-1) == truth.argmax(-1)).float().mean())
        p, q = truth.log_softmax(-1), found.log_softmax(-1)
        divergence = float((p.exp() * (p - q)).sum(-1).mean()) / math.log(2)
        print(f"| {name} | {error:.2%} | {same:.1%} | {divergence:.4f} |", flush=True)


def accuracy(count: int, schemes: Iterable[str]) -> None:
    """Share of held-out questions that the demo model answers letter by letter."""
    sys.path[:0] = [str(ROOT / "training"), str(ROOT / "plugins" / "llava" / "training")]
    from evaluate import cases, messages

    asked = list(cases(count, 0))
    params = SamplingParams(temperature=0, max_tokens=96)
    print(f"\n| scheme | exactly right, of {count} |\n|---|---|")
    for name in schemes:
        with LLM("demo/llava", dtype="bfloat16", quantization=SCHEMES[name], disable_progress=True) as llm:
            chats = [_with_picture(messages(case), case.image) for case in asked]
            answers = [output.outputs[0].text for output in llm.chat(chats, params, use_progress=False)]
        right = sum(answer == case.turn.answer for answer, case in zip(answers, asked))
        print(f"| {name} | {right / count:.1%} |", flush=True)


def _with_picture(chat: list[dict[str, Any]], picture: Any) -> list[dict[str, Any]]:
    for message in chat:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = picture
    return chat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Folder of a Llama-like checkpoint; left out: random weights of 0.3 B.")
    parser.add_argument("--questions", type=int, default=200, help="For the demo model; 0: none.")
    parser.add_argument("--schemes", nargs="*", default=list(SCHEMES), choices=list(SCHEMES))
    args = parser.parse_args()
    folder = args.model or str(model_folder(ROOT / "benchmarks" / "models", "llama-0.5b"))
    exactness(folder, args.schemes)
    if args.questions:
        accuracy(args.questions, args.schemes)


if __name__ == "__main__":
    main()

"""A tiny model whose answers are as long as they may be, so that there is something to stop."""

from __future__ import annotations

import json
from pathlib import Path

from engine_plugin_llava.tiny import llava
from safetensors.torch import load_file, save_file

LENGTH = 32_768


def make_endless(folder: Path) -> None:
    """Write its checkpoint: a LLaVA that never says that it is done, and has room for many tokens."""
    llava(0, folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    (head,) = (name for name in weights if name.endswith("lm_head.weight"))
    weights[head][config["text_config"]["eos_token_id"]] = 0  # never the likeliest of some hundred
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config["text_config"]["max_position_embeddings"] = LENGTH
    (folder / "config.json").write_text(json.dumps(config))

"""A Llama checkpoint as llama.cpp reads it: one file with its tensors under other names. Run in the peer's environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_LAYERS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""A layer's tensors: transformers' name → llama.cpp's."""


def gguf_file(folder: Path, weights: str) -> Path:
    """The checkpoint in llama.cpp's form, beside the original; made if it is not there yet.

    Args:
        folder: Of a Llama in bfloat16 with a head of its own.
        weights: Type of its matrices: `BF16` or `Q8_0`. Norms are float32.
    """
    out = folder.with_name(f"{folder.name}-{weights.lower()}.gguf")
    if not out.is_file():
        made = out.with_suffix(".new")
        _write(folder, made, weights)
        made.rename(out)
    return out


def _write(folder: Path, file: Path, weights: str) -> None:
    import gguf

    config = json.loads((folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    kind = gguf.GGMLQuantizationType[weights]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{weights}"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")  # it is given ids
    for source, values in _tensors(folder / "model.safetensors"):
        name = PLAIN.get(source) or _in_layer(source)
        part = name.split(".")[-2]
        if part in heads:
            values = _interleaved(values, heads[part])
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _in_layer(source: str) -> str:
    _, _, number, *part, kind = source.split(".")
    return f"blk.{number}.{IN_LAYERS['.'.join(part)]}.{kind}"


def _interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a projection in the order that llama.cpp's rotary embedding wants: pairs side by side, where transformers has
    halves."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tensors(file: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors of a safetensors file in bfloat16, a dtype that numpy does not have."""
    data: Any = np.memmap(file, dtype=np.uint8, mode="r")
    length = int(data[:8].view(np.uint64)[0])
    for name, said in json.loads(data[8 : 8 + length].tobytes()).items():
        if name != "__metadata__":
            assert said["dtype"] == "BF16"
            first, last = (8 + length + end for end in said["data_offsets"])
            words = data[first:last].view(np.uint16).astype(np.uint32) << 16
            yield name, words.view(np.float32).reshape(said["shape"])

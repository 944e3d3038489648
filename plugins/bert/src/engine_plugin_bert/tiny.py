"""Small random checkpoints, made offline: what `engine plugins verify` compares with HF."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sdk.testing.tiny import also_spelled, save_tiny, tiny_tokenizer


def tokenizer() -> Any:
    """Texts between `<s>` and `</s>`; the second of a pair has token type 1."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = tiny_tokenizer()
    ends = [(token, made.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer, model_input_names=names, **made.special_tokens_map
    )


def config(vocab_size: int, **others: Any) -> Any:
    """Three layers."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=3,
        **others,
    )


def of_2018(name: str) -> str:
    """The spelling of the first published checkpoints."""
    name = re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", name)
    return "bert." + re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)


@also_spelled(of_2018=of_2018)
def bert(seed: int, folder: Path) -> None:
    """BERT in a folder of sentence-transformers: the mean over the tokens, normalised."""
    from transformers import BertModel

    words = tokenizer()
    save_tiny(BertModel(config(len(words))), folder, seed=seed, tokenizer=words)
    modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    written = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (path, name) in enumerate(modules.items())
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 192, "do_lower_case": False},
    }
    (folder / "1_Pooling").mkdir()
    for name, values in written.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")


def classifier(seed: int, folder: Path) -> None:
    """A cross-encoder: one class, which says how well two texts fit."""
    from transformers import BertForSequenceClassification

    words = tokenizer()
    save_tiny(BertForSequenceClassification(config(len(words), num_labels=1)), folder, seed=seed, tokenizer=words)

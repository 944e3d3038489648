"""BERT by itself, against transformers' own implementation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from engine_plugin_bert.plugin import classifier, engine_architectures
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification, BertModel

from sdk import ConfigView, ModelContext
from sdk.errors import InvalidConfigError
from sdk.testing.parity import random_prompt
from sdk.testing.reference import assert_close, load_hf, load_reference, load_target
from sdk.testing.tiny import save_tiny

RECORDS = engine_architectures()
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def both(folder: Path, length: int, types: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Hidden states of a random prompt: ours and transformers'."""
    ours, theirs = load_reference(folder, RECORDS), load_hf(folder).base_model
    ids = torch.tensor(random_prompt(SHAPE["vocab_size"], length))
    with torch.inference_mode():
        expected = theirs(ids[None], token_type_ids=None if types is None else types[None]).last_hidden_state[0]
        return ours(ids, torch.arange(length), token_type_ids=types), expected


@pytest.mark.parametrize(
    "change", [{}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.01}, {"type_vocab_size": 1}], ids=str
)
def test_bert_equals_hf_up_to_its_last_position(tmp_path: Path, change: dict[str, object]) -> None:
    save_tiny(BertModel(BertConfig(**{**SHAPE, **change})), tmp_path, seed=1)
    for length in (1, 40, SHAPE["max_position_embeddings"]):
        assert_close(*both(tmp_path, length))


def test_the_second_text_of_a_pair_has_a_type_of_its_own(tmp_path: Path) -> None:
    save_tiny(BertModel(BertConfig(**SHAPE)), tmp_path, seed=1)
    types = (torch.arange(30) >= 11).long()
    paired, expected = both(tmp_path, 30, types)
    assert_close(paired, expected)
    assert not torch.allclose(paired, both(tmp_path, 30)[0])


def test_a_classifier_gives_hfs_logits(tmp_path: Path) -> None:
    save_tiny(BertForSequenceClassification(BertConfig(**SHAPE, num_labels=5)), tmp_path, seed=2)
    model, hidden = load_reference(tmp_path, RECORDS), torch.empty(0)
    prompts = [torch.tensor(random_prompt(SHAPE["vocab_size"], n)) for n in (3, 17)]
    for ids in prompts:
        hidden = torch.cat((hidden.view(-1, 48), model(ids, torch.arange(len(ids)))))
    with torch.inference_mode():
        expected = torch.cat([load_hf(tmp_path)(ids[None]).logits for ids in prompts])
        assert_close(model.classify(hidden, torch.tensor([3, 17])), expected)


def test_the_spelling_of_2018_and_the_heads_of_pre_training_load(tmp_path: Path) -> None:
    save_tiny(BertForPreTraining(BertConfig(**SHAPE)), tmp_path, seed=1, architecture="BertModel")
    expected = load_reference(tmp_path, RECORDS).state_dict()
    weights = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("cls.") for name in weights)
    assert all(name.startswith(("bert.", "cls.")) for name in weights)
    old = {re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", n)): t
           for n, t in weights.items()}  # fmt: skip
    old["bert.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    made = load_reference(tmp_path, RECORDS).state_dict()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_a_classifier_scores_pairs_where_it_has_one_class() -> None:
    assert classifier(ConfigView({"id2label": {"0": "LABEL_0"}})).tasks == ("classify", "score")
    assert classifier(ConfigView({"num_labels": 1})).tasks == ("classify", "score")
    assert classifier(ConfigView({})).tasks == ("classify",)


def test_bert_as_a_decoder_is_refused() -> None:
    model = load_target(RECORDS[0].model)
    with pytest.raises(InvalidConfigError, match="BERT as a decoder"):
        model(ctx=ModelContext(hf_config=BertConfig(**SHAPE, is_decoder=True)))

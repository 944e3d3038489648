"""BERT (Devlin et al. 2019): every token sees every other, and norms stand after the branches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdk import Model, ModelContext, SupportsPooling, WeightMap
from sdk.errors import InvalidConfigError
from sdk.layers import (
    MLP,
    BidirectionalAttention,
    LayerNorm,
    PositionEmbedding,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
)

RENAMED = (
    (r"^bert\.", ""),
    (r"\.gamma$", ".weight"),  # checkpoints of 2018
    (r"\.beta$", ".bias"),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.self\.(query|key|value)\.", r".\1."),
    (r"\.attention\.output\.dense\.", ".attention_output."),
    (r"\.attention\.output\.LayerNorm\.", ".attention_norm."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.output\.LayerNorm\.", ".output_norm."),
    (r"^embeddings\.LayerNorm\.", "embeddings.norm."),
    (r"^pooler\.dense\.", "pooler."),
)
"""HF's names → ours."""
UNUSED = (r"^embeddings\.position_ids$", r"^cls\.")
"""What is computed, and the heads of pre-training."""


def bert_norm(config: Any) -> LayerNorm:
    """A layer norm."""
    return LayerNorm(config.hidden_size, config.layer_norm_eps)


class BertEmbeddings(nn.Module):
    """Words, positions and token types, summed and normalised.

    Shapes: words `(tokens, hidden)`, positions and token_type_ids `(tokens,)` → `(tokens, hidden)`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.word_embeddings = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = PositionEmbedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = VocabParallelEmbedding(config.type_vocab_size, config.hidden_size)
        self.norm = bert_norm(config)

    def forward(self, words: Tensor, positions: Tensor, token_type_ids: Tensor | None) -> Tensor:
        types = torch.zeros_like(positions) if token_type_ids is None else token_type_ids
        types = types.clamp(max=self.token_type_embeddings.num_embeddings - 1)  # a tokenizer may tell more texts apart
        return self.norm(words + self.token_type_embeddings(types) + self.position_embeddings(positions))


class BertBlock(nn.Module):
    """One block: `(tokens, hidden) -> (tokens, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads, hidden = config.num_attention_heads, config.hidden_size
        self.qkv = QKVParallelLinear(hidden, hidden // heads, heads, parts=("query", "key", "value"))
        self.attention = BidirectionalAttention(heads, hidden // heads)
        self.attention_output = RowParallelLinear(hidden, hidden)
        self.attention_norm = bert_norm(config)
        self.mlp = MLP(hidden, config.intermediate_size, config.hidden_act)
        self.output_norm = bert_norm(config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention_output(self.attention(*self.qkv(x))))
        return self.output_norm(x + self.mlp(x))


class BertModel(Model, SupportsPooling):
    """BERT without a head: embeddings, by default the mean over the tokens."""

    weight_map = WeightMap(rename=RENAMED, drop=(*UNUSED, r"^pooler\."))

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        if config.is_decoder:
            raise InvalidConfigError(
                "BERT as a decoder (is_decoder in config.json) is not run here", param="is_decoder"
            )
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(BertBlock(config) for _ in range(config.num_hidden_layers))

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        return self.embeddings.word_embeddings(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: dict[str, Tensor] | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        words = self.get_input_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        x = self.embeddings(words, positions, token_type_ids)
        for layer in self.layers:
            x = layer(x)
        return x


class BertForSequenceClassification(BertModel):
    """BERT with a layer over its first token and the classes; with one class, a cross-encoder of pairs."""

    weight_map = WeightMap(rename=RENAMED, drop=UNUSED)

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.pooler = ReplicatedLinear(config.hidden_size, config.hidden_size)
        self.classifier = ReplicatedLinear(config.hidden_size, config.num_labels)

    def classify(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        first = hidden_states[lengths.cumsum(0) - lengths]
        return self.classifier(self.pooler(first).tanh())

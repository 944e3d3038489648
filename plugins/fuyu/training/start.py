"""A start from which the model learns fast. From a random one it sees as soon, but talks of what it sees much later."""

from __future__ import annotations

import math
from typing import Any

import torch
from checkpoint import IMAGE, PATCH
from descent import filters_of_waves
from learner import SEEING, SEEN, Learner
from shapes import COLOURS, PLACES, SHAPES
from torch import Tensor

LOOKUPS = 2
"""So many heads of each talking layer, together as wide as `SEEN`, begin as lookups."""


@torch.no_grad()
def prepare(learner: Learner, tokenizer: Any) -> None:
    """All weights."""
    _prepare_eyes(learner)
    for layer in learner.decoder.layers:
        _prepare_layer(layer, learner.decoder.config)
    decoder = learner.decoder
    decoder.embed_tokens.weight.normal_(0, 0.3)
    decoder.embed_tokens.weight[IMAGE] = 0
    learner.model.lm_head.weight.normal_(0, 0.02)
    prepare_talk(learner, tokenizer)


def _prepare_eyes(learner: Learner) -> None:
    """Cosines for pixels, which say nothing yet; and orthogonal things to say."""
    width = learner.decoder.config.hidden_size
    filters = filters_of_waves(width - SEEN, PATCH).permute(0, 2, 3, 1).flatten(1)
    embed = learner.model.model.vision_embed_tokens
    embed.weight.copy_(torch.cat([torch.zeros(SEEN, filters.shape[1]), filters]))
    embed.bias.zero_()
    said = learner.imagine.weight
    said.copy_(torch.linalg.qr(torch.randn(SEEN, SEEN))[0][:, : said.shape[1]])


def _prepare_layer(layer: Any, config: Any) -> None:
    """Attention to what is alike, and little added to what was there."""
    width, heads = config.hidden_size, config.num_attention_heads
    size, calm = width // heads, 1 / math.sqrt(2 * config.num_hidden_layers)
    qkv = layer.self_attn.query_key_value.weight.view(heads, 3, size, width)
    for head in range(heads):
        same = torch.linalg.qr(torch.randn(width, size))[0].T
        qkv[head, 0] = same + 0.01 * torch.randn_like(same)
        qkv[head, 1] = same
    qkv[:, 2].normal_(0, 1 / math.sqrt(width))
    layer.self_attn.dense.weight.normal_(0, calm / math.sqrt(width))
    layer.mlp.dense_h_to_4h.weight.normal_(0, 1 / math.sqrt(width))
    layer.mlp.dense_4h_to_h.weight.normal_(0, calm / math.sqrt(config.intermediate_size))


@torch.no_grad()
def prepare_talk(learner: Learner, tokenizer: Any) -> None:
    """The layers that talk, and words: each attends to what it names, and takes over all that is said of it."""
    config = learner.decoder.config
    size = config.hidden_size // config.num_attention_heads
    for layer in learner.decoder.layers[SEEING:]:
        attention = layer.self_attn
        qkv = attention.query_key_value.weight.view(config.num_attention_heads, 3, size, config.hidden_size)
        values = torch.linalg.qr(torch.randn(SEEN, SEEN))[0]
        for head in range(LOOKUPS):
            part = slice(head * size, (head + 1) * size)
            qkv[head, :2] = 0
            qkv[head, :2, :, :SEEN] = 2 * torch.linalg.qr(torch.randn(SEEN, size))[0].T
            qkv[head, 0] += 0.02 * torch.randn_like(qkv[head, 0])
            qkv[head, 2] = 0
            qkv[head, 2, :, :SEEN] = values[part]
            attention.dense.weight[:, part] = qkv[head, 2].T
        attention.q_layernorm.weight.fill_(1.5)
        attention.k_layernorm.weight.fill_(1.5)
    for word, said in _words(learner.imagine.weight).items():
        for form in (f"▁{word}", f"▁{word}s"):
            piece = tokenizer.convert_tokens_to_ids(form)
            if piece != tokenizer.unk_token_id:
                learner.decoder.embed_tokens.weight[piece, :SEEN] = 2 * said
                learner.model.lm_head.weight[piece, :SEEN] = 0.5 * said


def _words(said: Tensor) -> dict[str, Tensor]:
    """What `Learner.imagine` has the nine tokens say for each word, without what it says for all words of the kind."""
    shapes, colours, places = said[:, 1:].split([len(SHAPES), 1 + len(COLOURS), len(PLACES) + 1], 1)
    found = {}
    for names, columns in ((SHAPES, shapes), (COLOURS, colours[:, 1:])):
        found.update({name: columns[:, n] - columns.mean(1) for n, name in enumerate(names)})
    for word in ("top", "bottom", "left", "right", "middle"):
        of_it = [n for n, place in enumerate(PLACES.values()) if word in place.split()]
        found[word] = places[:, of_it].mean(1) - places[:, : len(PLACES)].mean(1)
    return found

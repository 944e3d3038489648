"""Train the tiny LLaVA demo checkpoint on synthetic shapes, from nothing, on a CPU.

usage: python train.py --out DIR [--minutes 30] [--seed 0] [--threads 2]

Needs torch, transformers, tokenizers, pillow and numpy; needs no network. The folder written is an ordinary Hugging
Face LLaVA checkpoint. Never run in CI: the wall clock decides the number of steps, so two runs differ a little.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from shapes import (
    COLOURS,
    PLACES,
    SHAPES,
    SYSTEMS,
    Scene,
    Turn,
    ask,
    conversation,
    example_scene,
    make_scene,
    outlines,
    render,
    source_size,
    text_only,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

PIXELS, PATCH = 112, 14
GRID = PIXELS // PATCH
IMAGE_TOKENS = GRID * GRID
VOCABULARY = 512
NAMES: tuple[list[Any], ...] = (list(SHAPES), list(COLOURS), list(PLACES))
FORM = 12  # an outline's picture has FORM * FORM pixels
ROW = 288  # tokens in a training row: one picture and as many conversations about it as fit
MIDDLES = (1, 4, 6)  # the patch in the middle of each third
SPOTS = [MIDDLES[row] * GRID + MIDDLES[column] for column, row in PLACES]
TURNS, ODDS = (1, 2, 3, 4), (70, 15, 10, 5)  # how long the conversations are
UNK, BOS, EOS, PAD, IMAGE = range(5)
SPECIALS = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]

CHAT = (
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'system' -%}"
    "{%- if m['content'] is string -%}{{ m['content'] + ' ' }}"
    "{%- else -%}"
    "{%- for c in m['content'] -%}{%- if c['type'] == 'text' -%}{{ c['text'] + ' ' }}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}"
    "{%- elif m['role'] == 'assistant' -%}"
    "{{- 'ASSISTANT:' -}}"
    "{%- if m['content'] is string -%}{{ m['content'] }}"
    "{%- else -%}{%- for c in m['content'] -%}{%- if c['type'] == 'text' -%}{{ c['text'] }}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}"
    "{{- eos_token -}}"
    "{%- else -%}"
    "{{- 'USER: ' -}}"
    "{%- if m['content'] is string -%}{{ m['content'] }}"
    "{%- else -%}"
    "{%- for c in m['content'] -%}"
    "{%- if c['type'] in ['image', 'image_url'] -%}{{ '<image>\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- for c in m['content'] -%}{%- if c['type'] == 'text' -%}{{ c['text'] }}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}"
    "{{- ' ' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)


# ---------------------------------------------------------------- tokenizer and model


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of VOCABULARY ids, learnt from the questions and answers; it puts <s> in front of every text."""
    rng = Random(f"tokenizer {seed}")

    def texts() -> Iterator[str]:
        for i in range(20_000):
            talk = text_only(rng) if i % 10 == 0 else [ask(make_scene(rng), rng)]
            yield from (f"USER: {t.question} ASSISTANT:" for t in talk)
            yield from (t.answer for t in talk)
            if i % 50 == 0:
                yield rng.choice(SYSTEMS)

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    assert tok.get_vocab_size() == VOCABULARY
    assert tok.token_to_id("<image>") == IMAGE
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT
    return fast


def make_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The whole picture, whatever its aspect, becomes one square of PIXELS; the crop then cuts nothing."""
    square = {"height": PIXELS, "width": PIXELS}
    images = CLIPImageProcessorPil(size=square, crop_size=square)
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        image_token="<image>",
        num_additional_image_tokens=1,
    )


def make_model() -> LlavaForConditionalGeneration:
    """About 2.6 million weights: a CLIP tower of 5 layers, a projector and a Llama of 4 layers."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=PIXELS,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def save(weights: dict[str, Tensor], tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the checkpoint in bfloat16, in the layout that published LLaVA checkpoints have."""
    out.mkdir(parents=True, exist_ok=True)
    copy = make_model()
    copy.load_state_dict({k: v.float() for k, v in weights.items()})
    copy.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, do_sample=False, max_new_tokens=96
    )
    copy.to(torch.bfloat16).eval().save_pretrained(out)
    published = {}
    for name, value in load_file(out / "model.safetensors").items():
        if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
            name = name.replace("vision_tower.", "vision_tower.vision_model.")
        published[name] = value
    save_file(published, out / "model.safetensors", {"format": "pt"})
    processor = make_processor(tokenizer)
    processor.save_pretrained(out)
    images = json.loads(processor.image_processor.to_json_string())  # the file and names that every version reads
    images.update(image_processor_type="CLIPImageProcessor", processor_class="LlavaProcessor")
    (out / "preprocessor_config.json").write_text(json.dumps(images, indent=2) + "\n")
    config = json.loads((out / "tokenizer_config.json").read_text())  # likewise
    config.pop("backend", None)
    config.update(tokenizer_class="PreTrainedTokenizerFast", extra_special_tokens={"image_token": "<image>"})
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    render(example_scene(), 384, 384, smooth=4).save(out / "example.png", optimize=True)


# ---------------------------------------------------------------- data


def picture(scene: Scene, rng: Random) -> np.ndarray:
    """The scene's pixels as the processor resizes them, from a source of any size."""
    image = render(scene, *source_size(rng, 180, 400), smooth=2 if rng.random() < 0.15 else 1)
    pixels = np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))
    if rng.random() < 0.4:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 7), pixels.shape)
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    return pixels


def truth(scene: Scene) -> dict[str, np.ndarray]:
    """What the picture shows, for the tower: which item covers each pixel, what the items are, and their outlines."""
    cover = Image.new("L", (PIXELS, PIXELS))
    items, forms = np.zeros((5, 3), np.int64), np.zeros((4, FORM, FORM), np.float32)
    radii = np.zeros(5, np.float32)
    for n, (item, points) in enumerate(zip(scene.items, outlines(scene, PIXELS, PIXELS), strict=True)):
        ImageDraw.Draw(cover).polygon(points, fill=n + 1)
        items[n + 1] = [
            1 + NAMES[0].index(item.shape),
            1 + NAMES[1].index(item.colour),
            1 + NAMES[2].index((item.column, item.row)),
        ]
        radii[n + 1] = item.radius
        form = Image.new("L", (FORM, FORM))
        ImageDraw.Draw(form).polygon(
            [(FORM / 2 + x * 0.4 * FORM, FORM / 2 + y * 0.4 * FORM) for x, y in item.outline], fill=1
        )
        forms[n] = np.asarray(form)
    return {"cover": np.asarray(cover), "items": items, "forms": forms, "radii": radii}


def album(job: tuple[str, int, bool]) -> dict[str, np.ndarray]:
    """A number of pictures and their truth; the easy ones show one or two large shapes."""
    name, count, easy = job
    rng = Random(name)
    rows: list[dict[str, np.ndarray]] = []
    while len(rows) < count:
        scene = make_scene(rng)
        if easy:
            if not 1 <= len(scene.items) <= 2 or min(i.radius for i in scene.items) < 0.13:
                continue
            scene = replace(scene, items=tuple(replace(i, hollow=0.0) for i in scene.items))
        rows.append({"pixels": picture(scene, rng), **truth(scene)})
    return {k: np.stack([r[k] for r in rows]) for k in rows[0]}


def turned(batch: dict[str, Tensor], way: int) -> dict[str, Tensor]:
    """The same pictures mirrored or turned in one of eight ways, and their truth with them."""

    def turn(x: Tensor) -> Tensor:
        x = x.flip(-1) if way & 1 else x
        x = x.flip(-2) if way & 2 else x
        return x.transpose(-1, -2) if way & 4 else x

    grid = torch.tensor([[1 + NAMES[2].index((c, r)) for c in range(3)] for r in range(3)])
    place = torch.zeros(10, dtype=torch.long)
    place[turn(grid).flatten()] = grid.flatten()
    items = batch["items"].clone()
    items[..., 2] = place[items[..., 2]]
    return {
        "pixels": turn(batch["pixels"].permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
        "cover": turn(batch["cover"]),
        "items": items,
        "forms": turn(batch["forms"]),
        "radii": batch["radii"],
    }


class Pictures(IterableDataset[dict[str, np.ndarray]]):
    """An endless stream of batches: one picture a row, then conversations about it that do not see each other."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch: int, seed: int) -> None:
        self.tokenizer, self.batch, self.seed = tokenizer._tokenizer, batch, seed

    def ids(self, text: str) -> list[int]:
        result: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return result

    def branch(self, talk: list[Turn], start: str) -> tuple[list[int], list[int]]:
        """Ids and labels (-100 but for the answers) of a conversation whose first question follows `start`."""
        ids: list[int] = []
        labels: list[int] = []
        for n, turn in enumerate(talk):
            question = self.ids(f"{start if n == 0 else 'USER: '}{turn.question} ASSISTANT:")
            answer = [*self.ids(turn.answer), EOS]
            ids += question + answer
            labels += [-100] * len(question) + answer
        return ids, labels

    def row(self, rng: Random) -> dict[str, np.ndarray]:
        scene = make_scene(rng)
        pixels = picture(scene, rng)
        first = [] if rng.random() < 0.04 else [BOS]
        if rng.random() < 0.1:
            first = first + self.ids(rng.choice(SYSTEMS) + " ")
        prefix = first + self.ids("USER: ") + [IMAGE] * IMAGE_TOKENS
        ids, labels = list(prefix), [-100] * len(prefix)
        parts, places, alone = [0] * len(prefix), list(range(len(prefix))), [0] * len(prefix)
        part = 0
        while True:
            part += 1
            without = rng.random() < 0.07  # a conversation without the picture
            if without:
                more, answers = self.branch(text_only(rng), "USER: ")
                more, answers = first + more, [-100] * len(first) + answers
            else:
                more, answers = self.branch(conversation(scene, rng, rng.choices(TURNS, ODDS)[0]), "\n")
            if len(ids) + len(more) > ROW:
                break
            ids += more
            labels += answers
            parts += [part] * len(more)
            places += range(0 if without else len(prefix), (0 if without else len(prefix)) + len(more))
            alone += [int(without)] * len(more)
        pad = ROW - len(ids)
        return {
            "pixels": pixels,
            **truth(scene),
            "ids": np.array(ids + [PAD] * pad),
            "labels": np.array(labels + [-100] * pad),
            "parts": np.array(parts + [-1] * pad),
            "places": np.array(places + [0] * pad),
            "alone": np.array(alone + [1] * pad),
        }

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        info = get_worker_info()
        rng = Random(f"train {self.seed} {info.id if info else 0}")
        while True:
            rows = [self.row(rng) for _ in range(self.batch)]
            yield {k: np.stack([r[k] for r in rows]) for k in rows[0]}


# ---------------------------------------------------------------- training


class Learner(nn.Module):
    """The model, with small heads that tell what each patch shows: they teach the tower and are then dropped."""

    def __init__(self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model = model
        # for every shape, colour and place, which ids the words of its name are
        self.words = [torch.zeros(1 + len(names), VOCABULARY) for names in NAMES]
        for table, names in zip(self.words, NAMES, strict=True):
            for n, name in enumerate(names, 1):
                text = name if isinstance(name, str) else PLACES[name].split(" the ")[-1].removeprefix("on ")
                table[n, tokenizer.encode(" " + text, add_special_tokens=False)] = 1
        model.model.vision_tower.set_attn_implementation("eager")  # on a CPU, faster backwards than sdpa
        width = model.config.vision_config.hidden_size
        self.norm, self.early_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads = nn.ModuleList([nn.Linear(width, 1 + len(names)) for names in NAMES])
        self.deep = nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 1 + len(SHAPES)))
        self.local = nn.Linear(width, PATCH * PATCH // 4)
        self.form = nn.Linear(width, FORM * FORM)
        self.spot = nn.Linear(width, 1 + len(SHAPES) + 1 + len(COLOURS) + 1)
        self.mean = torch.tensor(CLIPImageProcessorPil.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(CLIPImageProcessorPil.image_std).view(1, 3, 1, 1)
        self.weights = [torch.tensor([0.2] + [1.0] * len(names)) for names in NAMES]  # most patches are background

    def look(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tower's features of every patch, what the nine places hold, the heads' loss, and how many scenes are right."""
        tower: Any = self.model.model.vision_tower
        hidden = tower.embeddings((batch["pixels"].permute(0, 3, 1, 2) / 255 - self.mean) / self.std)
        hidden, early = tower.pre_layrnorm(hidden), None
        for n, layer in enumerate(tower.encoder.layers):
            hidden = layer(hidden, None)
            early = hidden[:, 1:] if n == 1 else early
        features = hidden[:, 1:]
        normed = self.norm(features)

        pixels = batch["cover"].view(-1, GRID, PATCH, GRID, PATCH).transpose(2, 3).reshape(-1, IMAGE_TOKENS, PATCH**2)
        most, best = torch.stack([(pixels == n + 1).float().mean(-1) for n in range(4)], -1).max(-1)
        shown = most > 0.15
        number = torch.where(shown, best + 1, 0)[..., None]
        labels = torch.gather(batch["items"], 1, number.expand(-1, -1, 3))
        labels[(most > 0.02) & ~shown] = -100  # too little of an item to tell
        forms = torch.gather(batch["forms"].flatten(2), 1, best[..., None].expand(-1, -1, FORM * FORM))
        half = PATCH // 2
        covered = (batch["cover"].view(-1, GRID, half, 2, GRID, half, 2) > 0).float().mean((3, 6))
        local = covered.transpose(2, 3).reshape(-1, IMAGE_TOKENS, half * half)

        logits = [head(normed).float() for head in self.heads]
        loss = sum(
            (
                F.cross_entropy(x.flatten(0, 1), labels[..., n].flatten(), weight=self.weights[n])
                for n, x in enumerate(logits)
            ),
            torch.zeros(()),
        )
        deep = self.deep(normed).float()
        loss = loss + F.cross_entropy(deep.flatten(0, 1), labels[..., 0].flatten(), weight=self.weights[0])
        near = self.local(self.early_norm(early)).float()
        loss = loss + 3 * F.binary_cross_entropy_with_logits(near, local)
        loss = loss + 3 * F.binary_cross_entropy_with_logits(self.form(normed)[shown].float(), forms[shown])

        # the patch in the middle of each of the nine places speaks for what is in that place
        rows = torch.arange(len(hidden))[:, None]
        named = torch.zeros(len(hidden), 10, 3, dtype=torch.long)
        named[rows, batch["items"][:, :, 2]] = batch["items"]
        radii = torch.zeros(len(hidden), 10)
        radii[rows, batch["items"][:, :, 2]] = batch["radii"]
        named, radii = named[:, 1:], radii[:, 1:]
        said = self.spot(normed[:, SPOTS]).float()
        shape, colour, radius = said[..., :5], said[..., 5:15], said[..., 15]
        loss = loss + F.cross_entropy(shape.flatten(0, 1), named[..., 0].flatten())
        loss = loss + F.cross_entropy(colour.flatten(0, 1), named[..., 1].flatten())
        loss = loss + 5 * F.mse_loss(radius, radii * 5)
        right = (shape.argmax(-1) == named[..., 0]).all(1).float().mean()
        return features, named, loss, right

    def talk(self, batch: dict[str, Tensor], features: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of the answers' tokens, which of them are right, and how far patches are from the words for them."""
        inner: Any = self.model.model
        projected = inner.multi_modal_projector(features)
        words = sum((table[shown[..., n]] for n, table in enumerate(self.words)), torch.zeros(()))
        words[shown[..., 0] == 0, UNK] = 1
        wanted = torch.zeros(*projected.shape[:2], VOCABULARY)
        wanted[..., UNK] = 1
        wanted[:, SPOTS] = words / words.sum(-1, keepdim=True)
        table = F.normalize(inner.language_model.embed_tokens.weight, dim=1)
        alike = F.rms_norm(projected.float(), projected.shape[-1:]) @ table.T
        apart = F.cross_entropy(alike[:, SPOTS].flatten(0, 1), wanted[:, SPOTS].flatten(0, 1))
        apart = apart + 0.3 * F.cross_entropy(alike.flatten(0, 1), wanted.flatten(0, 1))
        embeds = inner.language_model.embed_tokens(batch["ids"])
        embeds = embeds.masked_scatter((batch["ids"] == IMAGE).unsqueeze(-1), projected.to(embeds.dtype))
        parts = batch["parts"]
        mask = (parts[:, :, None] == parts[:, None]) | ((parts[:, None] == 0) & (batch["alone"] == 0)[:, :, None])
        mask = (mask & torch.ones(ROW, ROW, dtype=torch.bool).tril()).unsqueeze(1)
        hidden = inner.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=batch["places"], use_cache=False
        ).last_hidden_state
        targets = batch["labels"][:, 1:]
        at = targets != -100
        logits = self.model.lm_head(hidden[:, :-1][at]).float()
        return F.cross_entropy(logits, targets[at]), logits.argmax(-1) == targets[at], apart


def prepare_tower(tower: Any) -> None:
    """A start from which the tower learns fast: waves for positions, cosines for pixels, attention to what is alike."""
    table, filters = tower.embeddings.position_embedding.weight, tower.embeddings.patch_embedding.weight
    width = table.shape[1]
    with torch.no_grad():
        waves = math.pi / 16 * torch.logspace(0, 3, width // 4, base=2)
        y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        y, x = y.flatten()[:, None] * waves, x.flatten()[:, None] * waves
        table[1:] = 0.3 * torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 1)
        k = torch.arange(PATCH)
        basis = F.normalize(torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / PATCH), dim=1)
        colours = F.normalize(torch.tensor([[1.0, 1, 1], [1, -1, 0], [-0.5, -0.5, 1]]), dim=1)
        orders = sorted(((u, v) for u in range(PATCH) for v in range(PATCH)), key=lambda t: t[0] ** 2 + t[1] ** 2)
        rows = [
            c[:, None, None] * basis[u][:, None] * basis[v] * (0.3 if u + v else 0.06)
            for u, v in orders[: width // 3]
            for c in colours
        ]
        rows += [torch.zeros_like(rows[0])] * (width - len(rows))
        mixed = torch.linalg.qr(torch.randn(width, width))[0] @ torch.stack(rows).flatten(1)
        filters.copy_(mixed.view_as(filters) + 0.002 * torch.randn_like(filters))
        for layer in tower.encoder.layers:
            attention = layer.self_attn
            for head in range(attention.num_heads):
                part = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
                same = torch.linalg.qr(torch.randn(width, attention.head_dim))[0].T * (1.0 if head % 2 else 0.7)
                for projection in (attention.q_proj, attention.k_proj):
                    projection.weight[part] = same + 0.01 * torch.randn_like(same)
            for projection in (attention.v_proj, attention.out_proj):
                projection.weight.copy_(0.5 * torch.linalg.qr(torch.randn(width, width))[0])


def prepare_language(language: Any) -> None:
    """A start for the language model: attention to what is alike, so that words find the patches that show them."""
    with torch.no_grad():
        for layer in language.layers:
            attention = layer.self_attn
            size, width = attention.head_dim, attention.q_proj.in_features
            for head in range(attention.k_proj.out_features // size):
                same = 0.6 * torch.linalg.qr(torch.randn(width, size))[0].T
                attention.k_proj.weight[head * size : (head + 1) * size] = same + 0.01 * torch.randn_like(same)
                for n in range(attention.num_key_value_groups):
                    query = head * attention.num_key_value_groups + n
                    attention.q_proj.weight[query * size : (query + 1) * size] = same + 0.02 * torch.randn_like(same)


def exact(batch: dict[str, Tensor], right: Tensor) -> tuple[int, int]:
    """How many answers are right in every token, of how many: what greedy decoding would get."""
    targets = batch["labels"][:, 1:]
    ends = (targets[targets != -100] == EOS).long()
    answer = ends.cumsum(0) - ends
    worst = torch.ones(int(ends.sum()), dtype=torch.long).scatter_reduce(0, answer, right.long(), "amin")
    return int(worst.sum()), len(worst)


class Descent:
    """AdamW over groups of parameters, each with its own peak rate, warmed up by steps and lowered by the clock."""

    def __init__(self, groups: list[tuple[list[nn.Parameter], float]], minutes: float) -> None:
        self.seconds, self.begin, self.step = 60 * minutes, time.monotonic(), 0
        self.peaks = [rate for _, rate in groups]
        self.optimizer: Any = torch.optim.AdamW(
            [{"params": p} for p, _ in groups], betas=(0.9, 0.98), weight_decay=0.03, fused=True
        )

    @property
    def done(self) -> float:
        return (time.monotonic() - self.begin) / self.seconds

    def down(self, loss: Tensor) -> None:
        """One step."""
        self.step += 1
        shape = min(1, self.step / 150) * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * min(1, self.done))))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * shape
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()


def tower_parameters(learner: Learner) -> list[nn.Parameter]:
    return [p for n, p in learner.named_parameters() if not n.startswith("model.") or ".vision_tower." in n]


def teach_tower(learner: Learner, minutes: float, seed: int, batch_size: int) -> None:
    """First the tower alone: from pictures with their truth, no language."""
    jobs = [(f"tower {seed} {n}", 2500 if n < 2 else 4000, n < 2) for n in range(4)]
    with multiprocessing.Pool(2) as pool:
        albums = pool.map(album, jobs, chunksize=1)
    every = {k: torch.as_tensor(np.concatenate([a[k] for a in albums])) for k in albums[0]}
    chance = torch.Generator().manual_seed(seed)
    descent, log = Descent([(tower_parameters(learner), 1e-3)], minutes), time.monotonic()
    while descent.done < 1:
        some = torch.randint(0, len(every["pixels"]), (batch_size,), generator=chance)
        batch = turned({k: v[some] for k, v in every.items()}, int(torch.randint(0, 8, (1,), generator=chance)))
        with torch.autocast("cpu", torch.bfloat16):
            _, _, loss, right = learner.look(batch)
        descent.down(loss)
        if time.monotonic() - log > 20:
            log = time.monotonic()
            print(
                f"tower {100 * descent.done:5.1f}% step {descent.step} loss {loss.item():.3f} scenes right "
                f"{100 * right.item():.1f}%",
                flush=True,
            )


def teach_answers(
    learner: Learner, out: Path, tokenizer: PreTrainedTokenizerFast, minutes: float, seed: int, batch_size: int
) -> None:
    """Then all of it: questions and answers, with a little of the tower's own lessons. Saves a running average."""
    tower = tower_parameters(learner)
    known = {id(p) for p in tower}
    descent = Descent([([p for p in learner.parameters() if id(p) not in known], 1.5e-3), (tower, 3e-4)], minutes)
    average = {k: v.clone() for k, v in learner.model.state_dict().items()}
    data = DataLoader(Pictures(tokenizer, batch_size, seed), batch_size=None, num_workers=1, prefetch_factor=6)
    log = saved = time.monotonic()
    good = total = 0
    for arrays in data:
        if descent.done >= 1:
            break
        batch = {k: torch.as_tensor(v) for k, v in arrays.items()}
        with torch.autocast("cpu", torch.bfloat16):
            features, shown, patches, shapes = learner.look(batch)
            answers, right, apart = learner.talk(batch, features, shown)
        descent.down(answers + 0.1 * patches + 0.2 * apart)
        keep = min(0.997, descent.step / (descent.step + 10))
        with torch.no_grad():
            for k, v in learner.model.state_dict().items():
                if v.is_floating_point():
                    average[k].lerp_(v, 1 - keep)
        some, all_ = exact(batch, right)
        good, total = good + some, total + all_
        if time.monotonic() - log > 20:
            log = time.monotonic()
            print(
                f"all {100 * descent.done:5.1f}% step {descent.step} loss {answers.item():.4f} exactly right "
                f"{100 * good / total:.1f}% of {total}, scenes {100 * shapes.item():.1f}%, words {apart.item():.2f}",
                flush=True,
            )
            good = total = 0
        if time.monotonic() - saved > 180:
            saved = time.monotonic()
            save(average, tokenizer, out)
    save(average, tokenizer, out)
    print(f"saved {out} after {descent.step * batch_size} pictures", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30, help="for both lessons together")
    parser.add_argument("--tower", type=Path, help="keep the tower's lesson in this file; if it exists, go on from it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="more only on cores that nothing else uses")
    parser.add_argument("--compile", action="store_true", help="through torch.compile: needs a C++ compiler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer(args.seed)
    learner = Learner(make_model(), tokenizer)
    inner: Any = learner.model.model
    prepare_tower(inner.vision_tower)
    prepare_language(inner.language_model)
    print(f"{sum(p.numel() for p in learner.model.parameters()):,} weights", flush=True)
    if args.compile:
        inner.language_model.compile(dynamic=False)
        for layer in inner.vision_tower.encoder.layers:
            layer.compile(dynamic=False)
    if args.tower and args.tower.exists():
        learner.load_state_dict(torch.load(args.tower, weights_only=True), strict=False)
    else:
        teach_tower(learner, 0.4 * args.minutes, args.seed, 48)
        if args.tower:
            names = {n for n, _ in learner.named_parameters() if not n.startswith("model.") or ".vision_tower." in n}
            torch.save({k: v for k, v in learner.state_dict().items() if k in names}, args.tower)
    teach_answers(learner, args.out, tokenizer, 0.6 * args.minutes, args.seed, 16)


if __name__ == "__main__":
    main()

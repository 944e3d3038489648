"""Train the tiny LLaVA demo checkpoint on synthetic shapes, from nothing, on a CPU.

usage: python train.py --out DIR [--minutes 30] [--seed 0] [--threads 2]

Needs torch, transformers, tokenizers, pillow and numpy; needs no network. The folder written is an ordinary Hugging
Face LLaVA checkpoint. Never run in CI: the processor's time decides the number of steps, so two runs differ a little.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
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

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "training"))
from descent import Average, Descent, Report, branching, exact, filters_of_waves
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
    render,
    source_size,
    text_only,
)
from truth import FORM, NAMES, album, noisy, places, truth, turned

PIXELS, PATCH = 112, 14
GRID = PIXELS // PATCH
IMAGE_TOKENS = GRID * GRID
VOCABULARY = 512
ROW, SHORT_ROW = 288, 144  # tokens in a training row: one picture and as many conversations about it as fit
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
    return noisy(np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)), rng)


class Pictures(IterableDataset[dict[str, np.ndarray]]):
    """An endless stream of batches: one picture a row, then conversations about it that do not see each other.

    Without `pixels`, a row has nine image tokens only: those in the middle of the nine places, placed where they would be.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, pixels: bool, batch: int = 16) -> None:
        self.tokenizer, self.seed, self.pixels, self.batch = tokenizer._tokenizer, seed, pixels, batch

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
        first = [] if rng.random() < 0.04 else [BOS]
        if rng.random() < 0.1:
            first = first + self.ids(rng.choice(SYSTEMS) + " ")
        before = first + self.ids("USER: ")
        spots = list(range(IMAGE_TOKENS)) if self.pixels else SPOTS
        prefix = before + [IMAGE] * len(spots)
        ids, labels = list(prefix), [-100] * len(prefix)
        parts, alone = [0] * len(prefix), [0] * len(prefix)
        places = [*range(len(before)), *(len(before) + n for n in spots)]
        size, part = ROW if self.pixels else SHORT_ROW, 0
        while True:
            part += 1
            without = rng.random() < 0.07  # a conversation without the picture
            if without:
                more, answers = self.branch(text_only(rng), "USER: ")
                more, answers = first + more, [-100] * len(first) + answers
            else:
                more, answers = self.branch(conversation(scene, rng, rng.choices(TURNS, ODDS)[0]), "\n")
            if len(ids) + len(more) > size:
                break
            ids += more
            labels += answers
            parts += [part] * len(more)
            start = 0 if without else len(before) + IMAGE_TOKENS
            places += range(start, start + len(more))
            alone += [int(without)] * len(more)
        pad = size - len(ids)
        row = {
            "ids": np.array(ids + [PAD] * pad),
            "labels": np.array(labels + [-100] * pad),
            "parts": np.array(parts + [-1] * pad),
            "places": np.array(places + [0] * pad),
            "alone": np.array(alone + [1] * pad),
            **truth(scene, PIXELS),
        }
        return {**row, "pixels": picture(scene, rng)} if self.pixels else row

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        info = get_worker_info()
        rng = Random(f"train {self.seed} {info.id if info else 0} {self.pixels}")
        while True:
            rows = [self.row(rng) for _ in range(self.batch)]
            yield {k: np.stack([r[k] for r in rows]) for k in rows[0]}


# ---------------------------------------------------------------- training


class Learner(nn.Module):
    """The model, with what teaches it and is then dropped.

    Small heads tell what each patch shows, and what each of the nine places holds: the patch in the middle of a place
    speaks for it. `imagine` turns what the places hold into the embeddings that the projector should make of them.
    """

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        model.model.vision_tower.set_attn_implementation("quick")
        model.model.language_model.set_attn_implementation("quick")
        width, hidden = model.config.vision_config.hidden_size, model.config.text_config.hidden_size
        self.norm, self.early_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads = nn.ModuleList([nn.Linear(width, 1 + len(names)) for names in NAMES])
        self.deep = nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, 1 + len(SHAPES)))
        self.local = nn.Linear(width, PATCH * PATCH // 4)
        self.form = nn.Linear(width, FORM * FORM)
        self.spot = nn.Linear(width, 1 + len(SHAPES) + 1 + len(COLOURS) + 1)
        self.imagine = nn.Linear(1 + len(SHAPES) + 1 + len(COLOURS) + len(PLACES) + 1, hidden)
        self.blank = nn.Parameter(torch.zeros(hidden))
        self.mean = torch.tensor(CLIPImageProcessorPil.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(CLIPImageProcessorPil.image_std).view(1, 3, 1, 1)
        self.weights = [torch.tensor([0.2] + [1.0] * len(names)) for names in NAMES]  # most patches are background

    def imagined(self, batch: dict[str, Tensor]) -> Tensor:
        """The embeddings that nine perfect image tokens would have."""
        held, radii = places(batch)
        shapes, colours = F.one_hot(held[..., 0], 1 + len(SHAPES)), F.one_hot(held[..., 1], 1 + len(COLOURS))
        where = torch.eye(len(PLACES)).expand(len(held), -1, -1)
        result: Tensor = self.imagine(torch.cat([shapes, colours, where, 5 * radii[..., None]], -1)).float()
        return result

    def look(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The tower's features of every patch, the heads' loss, and which scenes they get right."""
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

        loss = torch.zeros(())
        for n, head in enumerate(self.heads):
            wanted = labels[..., n].flatten()
            loss = loss + F.cross_entropy(head(normed).float().flatten(0, 1), wanted, weight=self.weights[n])
        deep = self.deep(normed).float()
        loss = loss + F.cross_entropy(deep.flatten(0, 1), labels[..., 0].flatten(), weight=self.weights[0])
        loss = loss + 3 * F.binary_cross_entropy_with_logits(self.local(self.early_norm(early)).float(), local)
        loss = loss + 3 * F.binary_cross_entropy_with_logits(self.form(normed)[shown].float(), forms[shown])
        held, radii = places(batch)
        shape, colour, radius = self.spot(normed[:, SPOTS]).float().split([1 + len(SHAPES), 1 + len(COLOURS), 1], -1)
        loss = loss + F.cross_entropy(shape.flatten(0, 1), held[..., 0].flatten())
        loss = loss + F.cross_entropy(colour.flatten(0, 1), held[..., 1].flatten())
        loss = loss + 5 * F.mse_loss(radius[..., 0], radii * 5)
        right = ((shape.argmax(-1) == held[..., 0]) & (colour.argmax(-1) == held[..., 1])).all(1)
        return features, loss, right

    def aim(self, batch: dict[str, Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
        """The projector's embeddings of the picture, and how far they are from the imagined ones."""
        projected: Tensor = self.model.model.multi_modal_projector(features).float()
        spots = self.imagined(batch).detach()
        wanted = self.blank.detach().expand_as(projected).clone()
        wanted[:, SPOTS] = spots
        missed = (projected - wanted).square().mean(-1) / spots.var()
        return projected, missed[:, SPOTS].mean() + 0.3 * missed.mean()

    def talk(self, batch: dict[str, Tensor], seen: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the answers' tokens, and which of these tokens the model got right."""
        language: Any = self.model.model.language_model
        embeds = language.embed_tokens(batch["ids"])
        embeds = embeds.masked_scatter((batch["ids"] == IMAGE).unsqueeze(-1), seen.to(embeds.dtype))
        mask = branching(batch["parts"], batch["alone"])
        hidden = language(
            inputs_embeds=embeds, attention_mask=mask, position_ids=batch["places"], use_cache=False
        ).last_hidden_state
        targets = batch["labels"][:, 1:]
        at = targets != -100
        logits = self.model.lm_head(hidden[:, :-1][at]).float()
        return F.cross_entropy(logits, targets[at]), logits.argmax(-1) == targets[at]


def prepare_tower(tower: Any) -> None:
    """A start from which the tower learns fast: waves for positions, cosines for pixels, attention to what is alike."""
    table, filters = tower.embeddings.position_embedding.weight, tower.embeddings.patch_embedding.weight
    width = table.shape[1]
    with torch.no_grad():
        waves = math.pi / 16 * torch.logspace(0, 3, width // 4, base=2)
        y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        y, x = y.flatten()[:, None] * waves, x.flatten()[:, None] * waves
        table[1:] = 0.3 * torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 1)
        filters.copy_(filters_of_waves(width, PATCH))
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


def parameters(learner: Learner, *, language: bool) -> list[nn.Parameter]:
    """The language model's, or all others: the tower's, the projector's and the heads'."""
    names = ("model.lm_head", "model.model.language_model", "imagine", "blank")
    return [p for n, p in learner.named_parameters() if n.startswith(names) == language]


def teach_words(learner: Learner, tokenizer: PreTrainedTokenizerFast, minutes: float, seed: int, rate: float) -> None:
    """First the language model alone, told what the nine places hold: no picture, short rows, many steps."""
    descent = Descent([(parameters(learner, language=True), rate)], minutes)
    report = Report("words", descent)
    data = DataLoader(Pictures(tokenizer, seed, pixels=False), batch_size=None, num_workers=1, prefetch_factor=6)
    for arrays in data:
        if descent.done >= 1:
            break
        batch = {k: torch.as_tensor(v) for k, v in arrays.items()}
        with torch.autocast("cpu", torch.bfloat16):
            imagined = learner.imagined(batch)
            answers, right = learner.talk(batch, imagined + 0.1 * imagined.detach().std() * torch.randn_like(imagined))
        descent.down(answers)
        report.count(*exact(batch["labels"], right, EOS), loss=answers)


def teach_tower(learner: Learner, minutes: float, seed: int, rate: float) -> None:
    """Then the tower and the projector: from pictures with their truth, to say what the language model was told."""
    jobs = [(f"tower {seed} {n}", 2500 if n < 2 else 4000, n < 2, picture, PIXELS) for n in range(4)]
    with multiprocessing.Pool(2) as pool:
        albums = pool.map(album, jobs, chunksize=1)
    every = {k: torch.as_tensor(np.concatenate([a[k] for a in albums])) for k in albums[0]}
    chance = torch.Generator().manual_seed(seed)
    descent = Descent([(parameters(learner, language=False), rate)], minutes)
    report = Report("tower", descent)
    while descent.done < 1:
        some = torch.randint(0, len(every["pixels"]), (48,), generator=chance)
        batch = turned({k: v[some] for k, v in every.items()}, int(torch.randint(0, 8, (1,), generator=chance)))
        with torch.autocast("cpu", torch.bfloat16):
            features, loss, right = learner.look(batch)
            _, missed = learner.aim(batch, features)
        descent.down(loss + 3 * missed)
        report.count(int(right.sum()), len(right), loss=loss, missed=missed)


def teach_all(
    learner: Learner,
    out: Path,
    tokenizer: PreTrainedTokenizerFast,
    minutes: float,
    seed: int,
    rate: float,
    aimed: float,
) -> None:
    """Last all of it: questions and answers about pictures. Saves a running average."""
    descent = Descent(
        [(parameters(learner, language=True), rate), (parameters(learner, language=False), rate)], minutes
    )
    report = Report("all", descent)
    average = Average(learner.model)
    data = DataLoader(Pictures(tokenizer, seed, pixels=True), batch_size=None, num_workers=1, prefetch_factor=6)
    saved = time.monotonic()
    for arrays in data:
        if descent.done >= 1:
            break
        batch = {k: torch.as_tensor(v) for k, v in arrays.items()}
        with torch.autocast("cpu", torch.bfloat16):
            features, patches, scenes = learner.look(batch)
            seen, missed = learner.aim(batch, features)
            answers, right = learner.talk(batch, seen)
        descent.down(answers + 0.1 * patches + aimed * missed)
        average.take(descent.step)
        report.count(*exact(batch["labels"], right, EOS), loss=answers, missed=missed, scenes=scenes.float().mean())
        if time.monotonic() - saved > 150:
            saved = time.monotonic()
            save(average.weights, tokenizer, out)
    save(average.weights, tokenizer, out)
    print(f"saved {out} after {descent.step} steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45, help="for the lessons together, each the same time")
    parser.add_argument("--lessons", default="words,tower,all", help="which of them")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="the highest learning rate")
    parser.add_argument("--start", type=Path, nargs="*", default=[], help="go on from these states or checkpoints")
    parser.add_argument("--state", type=Path, help="write the state to go on from here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="more only on cores that nothing else uses")
    parser.add_argument("--compile", action="store_true", help="through torch.compile: needs a C++ compiler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    known = args.start and (args.out / "tokenizer.json").exists()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out) if known else make_tokenizer(args.seed)
    learner = Learner(make_model())
    inner: Any = learner.model.model
    prepare_tower(inner.vision_tower)
    prepare_language(inner.language_model)
    for state in args.start:
        if state.is_dir():
            learner.model.load_state_dict(LlavaForConditionalGeneration.from_pretrained(state).float().state_dict())
            continue
        learner.load_state_dict(torch.load(state, weights_only=True), strict=False)
        learner.imagine.requires_grad_(False)  # what was learnt from it stays true
    tokenizer.save_pretrained(args.out)
    print(f"{sum(p.numel() for p in learner.model.parameters()):,} weights", flush=True)
    if args.compile:
        inner.language_model.compile(dynamic=False)
        for layer in inner.vision_tower.encoder.layers:
            layer.compile(dynamic=False)
    lessons = args.lessons.split(",")
    minutes = args.minutes / len(lessons)
    if "words" in lessons:
        teach_words(learner, tokenizer, minutes, args.seed, args.rate)
    if "tower" in lessons:
        teach_tower(learner, minutes, args.seed, args.rate)
    if "all" in lessons:
        # A checkpoint holds no nine places as the language model was told them, so nothing is to be aimed at.
        aimed = 0.0 if any(s.is_dir() for s in args.start) else 0.3
        teach_all(learner, args.out, tokenizer, minutes, args.seed, args.rate / 2, aimed)
    if args.state:
        torch.save(learner.state_dict(), args.state)


if __name__ == "__main__":
    main()

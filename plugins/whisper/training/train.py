"""Train the small Whisper that ships as `demo/whisper` on synthetic speech, from nothing, on a CPU.

usage: python train.py --out DIR [--minutes 60] [--seed 0] [--threads 1] [--start DIR]

Needs espeak-ng on the path, and torch, transformers, tokenizers, soundfile and soxr; needs no network. The folder written is an
ordinary Hugging Face Whisper checkpoint. Never run in CI: the processor's time decides the number of steps.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from engine_plugin_whisper.tiny import generation_entries, whisper_config, whisper_tokenizer
from speech import (
    RATE,
    SECONDS,
    WORDS,
    Phrase,
    Utterance,
    learnt_voice,
    other_voice,
    put_together,
    silence,
    some_words,
    speak,
)
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

LANGUAGES = ("en",)
BATCH = 24
FRAMES = 50 * SECONDS
IGNORED = -100
PEAK_RATE = 1.5e-3
AGAIN = 0.5
"""Share of the peak rate where a checkpoint is trained on."""


def make_tokenizer() -> Any:
    """Every word of the vocabulary is one token."""
    lines = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
    merges = sum(len(word) for word in WORDS)
    for size in range(256 + merges + 1, 256, -1):  # as many pieces as the words give
        try:
            return whisper_tokenizer(
                [f" {line}" for line in lines], vocab_size=size, languages=LANGUAGES, seconds=SECONDS
            )
        except ValueError:
            continue
    raise AssertionError("no vocabulary")


def make_model(tokenizer: Any) -> WhisperForConditionalGeneration:
    """About 1.6 million weights."""
    config = whisper_config(
        tokenizer, d_model=128, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=384, decoder_layers=2,
        decoder_attention_heads=4, decoder_ffn_dim=384, max_source_positions=50 * SECONDS, max_target_positions=128,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config)


class Batch(NamedTuple):
    """What is heard, and what shall be said of it.

    Attributes:
        features: `(clips, 80, 100 * SECONDS)`, the log-mel spectrograms.
        ids, labels: `(clips, tokens)`, what the decoder is given, and what it shall say next.
        words: Of each clip, the tokens of its words alone.
        frames: `(clips, 50 * SECONDS)`, the word that each frame of the encoder lies in, where it is known; `blank` in a pause.
    """

    features: Tensor
    ids: Tensor
    labels: Tensor
    words: list[list[int]]
    frames: Tensor


class Examples:
    """Endless batches from a stock of phrases.

    Args:
        stock: Phrases, each put together with others again and again.
        tokenizer: Writes what is said.
        rng: Chooses.
    """

    def __init__(self, stock: list[Phrase], tokenizer: Any, rng: Random) -> None:
        self.stock, self.tokenizer, self.rng = stock, tokenizer, rng
        self.singles = [phrase for phrase in stock if len(phrase.words) == 1]
        self.blank = len(tokenizer) - 1
        self.extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=SECONDS)
        self.ids = tokenizer.get_added_vocab()

    def batch(self, alone: float) -> Batch:
        """Some clips; `alone` is the share of those in which every word stands alone, so that its place is known."""
        made = [self._utterance(alone) for _ in range(BATCH)]
        features = self.extractor([u.wave for u in made], sampling_rate=RATE, return_tensors="pt").input_features
        pairs = [self._target(u, timestamps=self.rng.random() < 0.5) for u in made]
        longest = max(len(ids) for ids, _ in pairs)
        ids = torch.full((BATCH, longest), self.ids["<|endoftext|>"])
        labels = torch.full((BATCH, longest), IGNORED)
        for i, (known, wanted) in enumerate(pairs):
            ids[i, : len(known)], labels[i, : len(wanted)] = torch.tensor(known), torch.tensor(wanted)
        return Batch(
            features, ids, labels, [self._words(u.words) for u in made], torch.stack([self._frames(u) for u in made])
        )

    def _utterance(self, alone: float) -> Utterance:
        if self.rng.random() < 0.04:
            return silence(self.rng)
        stock = self.singles if self.rng.random() < alone else self.stock
        return put_together(self.rng.choices(stock, k=self.rng.choice((1, 2, 2, 3))), self.rng)

    def _frames(self, said: Utterance) -> Tensor:
        frames = torch.full((FRAMES,), self.blank)
        for start, end, words in said.parts:
            frames[round(50 * start) : round(50 * end)] = self._words(words)[0] if len(words) == 1 else IGNORED
        return frames

    def _words(self, words: Any) -> list[int]:
        ids: list[int] = self.tokenizer("".join(f" {w}" for w in words), add_special_tokens=False)["input_ids"]
        return ids

    def _target(self, said: Utterance, *, timestamps: bool) -> tuple[list[int], list[int]]:
        ids, zero = self.ids, self.ids["<|0.00|>"]
        begin = [ids["<|startoftranscript|>"], ids["<|en|>"], ids["<|transcribe|>"]]
        if not said.parts:
            return [*begin, ids["<|notimestamps|>"]], [ids["<|nospeech|>"], IGNORED, IGNORED, ids["<|endoftext|>"]]
        text: list[int] = [] if timestamps else [ids["<|notimestamps|>"]]
        for start, end, words in said.parts:
            stamps = [zero + round(50 * t) for t in (start, end)]
            text += [stamps[0], *self._words(words), stamps[1]] if timestamps else self._words(words)
        known = [*begin, *text]
        wanted = [ids["<|en|>"], IGNORED, text[0] if timestamps else IGNORED, *text[1:], ids["<|endoftext|>"]]
        return known, wanted


def rate_at(share: float, peak: float) -> float:
    """The learning rate after this share of the time."""
    return peak * min(1.0, share / 0.03) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def train(model: WhisperForConditionalGeneration, examples: Examples, minutes: float, *, again: bool) -> None:
    """Until the time is up. The encoder also learns by itself which word each frame lies in, where that is known, and to spell
    (CTC, Graves et al. 2006); without, the decoder finds out very late where to look. That head is thrown away;
    a checkpoint that is trained on has learnt as much, and does without."""
    speller = nn.Linear(model.config.d_model, model.config.vocab_size)
    optimizer = torch.optim.AdamW([*model.parameters(), *speller.parameters()], weight_decay=0.01, betas=(0.9, 0.98))
    start = last = time.process_time()
    step, seen = 0, 0.0
    model.train()
    while (share := (time.process_time() - start) / (60 * minutes * torch.get_num_threads())) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(share, PEAK_RATE * (AGAIN if again else 1))
        given = examples.batch(alone=1.0 if share < 0.12 and not again else 0.3)
        states = model.get_encoder()(given.features).last_hidden_state
        logits = model(encoder_outputs=(states,), decoder_input_ids=given.ids).logits
        loss = F.cross_entropy(logits.flatten(0, 1), given.labels.flatten(), ignore_index=IGNORED)
        spelt = speller(states).log_softmax(-1)
        framed = F.nll_loss(spelt.flatten(0, 1), given.frames.flatten(), ignore_index=IGNORED)
        lengths = torch.tensor([len(w) for w in given.words])
        target = torch.tensor([t for w in given.words for t in w])
        full = torch.full((BATCH,), FRAMES)
        ctc = F.ctc_loss(spelt.transpose(0, 1), target, full, lengths, blank=examples.blank, zero_infinity=True)
        optimizer.zero_grad()
        (loss if again else loss + (1 - share) * (0.3 * ctc + framed)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, seen = step + 1, 0.95 * seen + 0.05 * float(loss.detach())
        if time.process_time() - last > 20:
            last = time.process_time()
            ear = f"ctc {float(ctc.detach()):.3f}, frames {float(framed.detach()):.3f}"
            print(f"{share:4.0%} step {step}: loss {seen / (1 - 0.95**step):.3f}, {ear}", flush=True)
    model.eval()


def save(model: WhisperForConditionalGeneration, examples: Examples, out: Path) -> None:
    """Write the checkpoint in bfloat16, in the layout that published ones have."""
    config, tokenizer = model.config, examples.tokenizer
    said = {**generation_entries(tokenizer, LANGUAGES), "max_length": config.max_target_positions}
    said |= {"suppress_tokens": [], "begin_suppress_tokens": [config.eos_token_id]}
    upper = config.decoder_layers - 1
    said["alignment_heads"] = [[upper, head] for head in range(config.decoder_attention_heads)]
    special = {"decoder_start_token_id": config.decoder_start_token_id, "eos_token_id": config.eos_token_id}
    model.generation_config = GenerationConfig(
        **said, **special, bos_token_id=config.bos_token_id, pad_token_id=config.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(out)
    WhisperProcessor(examples.extractor, tokenizer).save_pretrained(out)


def spoken(number: int, rng: Random) -> Phrase:
    """A phrase: every third is a single word, every second in a stranger voice."""
    words = rng.choices(WORDS) if number % 3 == 0 else some_words(rng)
    voice = other_voice(rng) if number % 2 else learnt_voice(rng)
    return speak(words, voice, rng, rng.uniform(0.85, 1.18))


def main() -> None:
    """Speak, train, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--phrases", type=int, default=8000)
    parser.add_argument("--start", type=Path, help="a folder that this script wrote, to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)
    rng = Random(arguments.seed)
    stock = [spoken(i, rng) for i in range(arguments.phrases)]
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    if arguments.start:
        model.load_state_dict(WhisperForConditionalGeneration.from_pretrained(arguments.start).float().state_dict())
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million weights, {len(tokenizer)} tokens", flush=True
    )
    examples = Examples(stock, tokenizer, rng)
    train(model, examples, arguments.minutes, again=arguments.start is not None)
    save(model, examples, arguments.out)


if __name__ == "__main__":
    main()

"""Train the small Fuyu that ships as `demo/fuyu` on synthetic shapes, from nothing, on a CPU.

usage: python train.py --out DIR [--minutes 60] [--seed 0] [--threads 1] [--state STATE] [--start STATE]

Needs this plugin, torch, transformers, tokenizers, pillow and numpy; needs no network. The folder written is an ordinary
Hugging Face Fuyu checkpoint. Never run in CI: the processor's time decides the number of steps, so two runs differ a little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint import END, Rows, album, make_model, make_tokenizer, save
from descent import Average, Descent, Report, exact
from learner import Learner
from start import prepare
from torch import Tensor
from torch.utils.data import DataLoader
from truth import turned

SAVE_SECONDS = 300


def stream(rows: Rows) -> Iterator[dict[str, Tensor]]:
    """Batches, made by another process."""
    for arrays in DataLoader(rows, batch_size=None, num_workers=1, prefetch_factor=4):
        yield {k: torch.as_tensor(v) for k, v in arrays.items()}


def teach_apart(
    learner: Learner, tokenizer: Any, state: Path | None, minutes: float, seed: int, rate: float, pictures: int
) -> None:
    """First apart: the lower layers say what is in pictures, and the upper ones talk of pictures they are told of."""
    jobs = [(f"look {seed} {n}", pictures // 4) for n in range(4)]
    with multiprocessing.Pool(2) as pool:
        albums = pool.map(album, jobs, chunksize=1)
    every = {k: torch.as_tensor(np.concatenate([a[k] for a in albums])) for k in albums[0]}
    chance = torch.Generator().manual_seed(seed)
    descent = Descent([(list(learner.parameters()), rate)], minutes)
    look, words, saved = Report("look ", descent), Report("words", descent), time.process_time()
    for rows in stream(Rows(tokenizer, seed, pixels=False, batch=14)):
        if descent.done >= 1:
            break
        some = torch.randint(0, len(every["pixels"]), (20,), generator=chance)
        batch = turned({k: v[some] for k, v in every.items()}, int(torch.randint(0, 8, (1,), generator=chance)))
        with torch.autocast("cpu", torch.bfloat16):
            x, outputs = learner.picture(batch)
            seen, scenes = learner.look(batch, outputs)
            missed = learner.missed(batch, x)
            answers, right = learner.dream(rows, x)
        descent.down(seen + 3 * missed + 2 * answers)
        look.count(int(scenes.sum()), len(scenes), loss=seen, missed=missed)
        words.count(*exact(rows["labels"], right, END), loss=answers)
        if state and time.process_time() - saved > SAVE_SECONDS:
            saved = time.process_time()
            torch.save(learner.state_dict(), state)
    if state:
        torch.save(learner.state_dict(), state)


def teach_together(
    learner: Learner,
    tokenizer: Any,
    out: Path,
    state: Path | None,
    minutes: float,
    seed: int,
    rate: float,
    aimed: float,
) -> None:
    """Then together: questions and answers about pictures. Saves a running average."""
    descent, average = Descent([(list(learner.parameters()), rate)], minutes), Average(learner.model)
    report, saved = Report("all", descent), time.process_time()
    for batch in stream(Rows(tokenizer, seed, pixels=True, batch=24)):
        if descent.done >= 1:
            break
        with torch.autocast("cpu", torch.bfloat16):
            outputs, answers, right = learner.see(batch)
            seen, scenes = learner.look(batch, outputs)
            missed = learner.missed(batch, outputs[-1])
        descent.down(answers + 0.1 * seen + aimed * missed)
        average.take(descent.step)
        report.count(
            *exact(batch["labels"], right, END), loss=answers, seen=seen, missed=missed, scenes=scenes.float().mean()
        )
        if time.process_time() - saved > SAVE_SECONDS:
            saved = time.process_time()
            keep(learner, average, tokenizer, out, state)
    keep(learner, average, tokenizer, out, state)
    print(f"saved {out} after {descent.step} steps", flush=True)


def keep(learner: Learner, average: Average, tokenizer: Any, out: Path, state: Path | None) -> None:
    """Write the checkpoint, and the state to go on from."""
    save(average.weights, tokenizer, out)
    if state:
        torch.save({**learner.state_dict(), **{f"model.{k}": v for k, v in average.weights.items()}}, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60, help="of the processor's time, for the lessons together")
    parser.add_argument("--lessons", default="apart,together", help="which of them")
    parser.add_argument("--apart", type=float, default=0.45, help="the first lesson's share of the time")
    parser.add_argument("--pictures", type=int, default=10_000, help="for the first lesson, each seen in eight ways")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="the highest learning rate")
    parser.add_argument("--start", type=Path, help="go on from this state")
    parser.add_argument("--state", type=Path, help="write the state to go on from here, now and then")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="more only on cores that nothing else uses")
    parser.add_argument("--compile", action="store_true", help="through torch.compile: needs a C++ compiler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer(0)  # the same for every seed, so that any state can be gone on from
    learner = Learner(make_model(len(tokenizer)))
    prepare(learner, tokenizer)
    if args.start:
        learner.load_state_dict(torch.load(args.start, weights_only=True))
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{sum(p.numel() for p in learner.model.parameters()):,} weights, {len(tokenizer)} pieces", flush=True)
    if args.compile:
        for layer in learner.decoder.layers:
            layer.compile(dynamic=False)
    lessons = args.lessons.split(",")
    share = args.apart if len(lessons) == 2 else 1.0 if "apart" in lessons else 0.0
    if "apart" in lessons:
        teach_apart(learner, tokenizer, args.state, args.minutes * share, args.seed, args.rate, args.pictures)
    if "together" in lessons:
        teach_together(
            learner, tokenizer, args.out, args.state, args.minutes * (1 - share), args.seed, args.rate / 2, aimed=0.3
        )


if __name__ == "__main__":
    main()

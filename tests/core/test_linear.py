"""R046: what many media cost. Work is counted in executed lines of Python, which no busy machine changes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import core
import sdk
from core import LLM
from core.jobs import JobMaker
from core.scheduler import Scheduler

from .conftest import SHORT

PACKAGES = tuple(str(Path(p.__file__ or "").parent) for p in (core, sdk))


def lines_of(llm: LLM, images: int) -> int:
    """Lines of ours that run until a prompt of so many pictures, given as embeddings, is processed, keyed and scheduled."""
    prompt = {"prompt": "<image>" * images, "multi_modal_data": {"image": list(torch.rand(images, 16, 64))}}
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace if frame.f_code.co_filename.startswith(PACKAGES) else None

    pool = llm.engine.pool
    scheduler = Scheduler(pool, 4, 256, 256, prefix_caching=True, chunking="item-atomic")
    sys.settrace(trace)
    try:
        made = llm.engine.inputs.process(prompt)
        (request,) = JobMaker(llm.engine).make("0-x", made, SHORT).requests
        scheduler.add(request)
        while request.num_computed < request.prompt_len:
            (scheduled,) = scheduler.schedule()
            request.encoded.update(dict.fromkeys(scheduled.encode))
            scheduler.computed(scheduled)
        scheduler.finish([request])
    finally:
        sys.settrace(None)
        pool.forget()
    return count


def test_R046_work_grows_as_the_number_of_media(llava_folder: Path) -> None:
    options = {"max_model_len": 1024 * 16 + 64, "limit_mm_per_prompt": {"image": 1024}, "max_num_seqs": 2}
    with LLM(str(llava_folder), dtype="float32", block_size=16, **options) as llm:
        lines_of(llm, 4)
        few, many = lines_of(llm, 128), lines_of(llm, 1024)
    assert many < 8.8 * few

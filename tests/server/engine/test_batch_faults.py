"""A line of a batch that kills the engine is its own record, and every other line is answered as ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core import LLM
from core.media.fetch import MediaFetcher
from core.server.app import build_app
from core.server.batch import Batch
from core.server.batch_file import Records, read_lines
from core.server.models import Models
from core.server.settings import ServerSettings
from core.server.start import served_model

from .conftest import ABORT, NOT_BY_ITSELF, SHORT, Start, prompt_ids

pytestmark = pytest.mark.asyncio
LINES, DEADLY = 10, 4


async def test_a_line_that_kills_the_engine_takes_no_other_with_it(
    start: Start, llama: LLM, bad: Callable[[str], None], tmp_path: Path
) -> None:
    prompts = [prompt_ids(i, 9) for i in range(LINES)]
    params = replace(SHORT, logit_bias=NOT_BY_ITSELF)
    expected = [llama.generate({"prompt_token_ids": prompt}, params)[0].outputs[0].text for prompt in prompts]
    prompts[DEADLY].append(ABORT)
    bad("Bad")
    body = {"max_tokens": SHORT.max_tokens, "temperature": 0, "ignore_eos": True, "logit_bias": NOT_BY_ITSELF}
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"custom_id": str(i), "url": "/v1/completions", "body": {**body, "prompt": p}} for i, p in enumerate(prompts)
    ]
    source.write_text("\n".join(map(json.dumps, lines)))
    with start(engine_restarts=2) as client, Records(target) as records:
        await client.ready()
        app = build_app(Models({"bad": served_model("bad", client)}), ServerSettings())
        tally = await Batch(app, MediaFetcher(), concurrency=4).run(read_lines(source), records)
        assert client.stats().restarts == 2  # once with others in flight, and once more
    assert (tally.answered, tally.failed) == (LINES - 1, 1)
    found = {r["custom_id"]: r["response"] for r in map(json.loads, target.read_text().splitlines())}
    assert found[str(DEADLY)]["status_code"] == 503
    assert found[str(DEADLY)]["body"]["error"]["code"] == "engine_dead"
    texts = {name: reply["body"]["choices"][0]["text"] for name, reply in found.items() if name != str(DEADLY)}
    assert texts == {str(i): text for i, text in enumerate(expected) if i != DEADLY}

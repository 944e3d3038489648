"""What start-up plans: the same numbers told before and after loading, refusals with their numbers, items held to the plan."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_plugin_llava.processing import LlavaProcessingInfo

from core import LLM, explain, plan
from core.cli import run
from core.errors import InvalidConfigError, MediaTooLargeError, MemoryProfileError
from core.profile import measure_step

from .conftest import GREEDY, Faulty, assert_idle, copy_checkpoint, tokens, with_pictures

OPTIONS: dict[str, Any] = {"dtype": "float32", "block_size": 16, "kv_cache_bytes": 2**20}
MIB = 2**20


def test_explain_tells_what_the_engine_then_does(llava_folder: Path) -> None:
    told = explain(str(llava_folder), **OPTIONS)
    assert told.refused is None
    with LLM(str(llava_folder), **OPTIONS) as llm:
        done = llm.plan
        parameters = sum(p.numel() for p in llm.engine.model.parameters() if p.numel())
    assert told.plan is not None
    assert told.plan.as_json() | {"memory": None} == done.as_json() | {"memory": None}
    assert told.plan.memory.weights == done.memory.weights > 4 * parameters  # packed weights have left the parameters
    assert told.plan.memory.activations == done.memory.activations > 0
    assert told.plan.attention == {"full": 2}
    assert told.plan.bytes_per_token == 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, width, bytes
    (images,) = told.plan.media
    assert (images.modality, images.limit, images.item_tokens) == ("image", 8, 16)
    assert told.capabilities is not None
    assert told.capabilities["modalities"] == ["image"]


def test_explain_needs_config_json_alone(llama_folder: Path, llava_folder: Path, tmp_path: Path) -> None:
    for folder, notes in ((llama_folder, 0), (llava_folder, 1)):
        bare = tmp_path / folder.name
        bare.mkdir()
        (bare / "config.json").write_bytes((folder / "config.json").read_bytes())
        told = explain(str(bare), **OPTIONS)
        assert told.refused is None
        assert len(told.notes) == notes
        assert told.plan is not None
        whole = explain(str(folder), **OPTIONS).plan
        assert whole is not None
        assert told.plan.bytes_per_token == whole.bytes_per_token
        assert told.plan.memory.weights == whole.memory.weights


def test_explain_of_text_alone_names_what_is_left_out(llava_folder: Path) -> None:
    whole, text = (explain(str(llava_folder), limit_mm_per_prompt={"image": n}).plan for n in (1, 0))
    assert whole is not None
    assert text is not None
    assert set(text.left_out) == {"vision_tower", "multi_modal_projector"}
    assert text.memory.weights < whole.memory.weights
    assert text.memory.activations < whole.memory.activations
    assert text.encoder_tokens == 0
    assert any("none allowed; left out" in value for _, value in text.lines())


def test_explain_says_what_is_refused_and_why(llama_folder: Path, tmp_path: Path) -> None:
    def refused(model: Path | str, **options: Any) -> tuple[str | None, str]:
        told = explain(str(model), **options)
        return told.refused_code, told.refused or ""

    unknown = copy_checkpoint(llama_folder, tmp_path / "unknown")
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps({**config, "architectures": ["NobodysForCausalLM"]}))
    assert refused(unknown)[0] == "plugin_missing"
    assert refused(tmp_path / "nowhere")[0] == "model_not_found"
    assert refused(llama_folder, max_model_length=5) == ("invalid_config", refused(llama_folder, max_model_length=5)[1])
    assert "max_model_len" in refused(llama_folder, max_model_length=5)[1]
    code, message = refused(llama_folder, kv_cache_bytes=2**60)
    assert (code, "Lower kv_cache_bytes" in message) == ("memory_profile", True)
    code, message = refused(llama_folder, kv_cache_bytes=4096, max_model_len=500)
    assert (code, "raise kv_cache_bytes" in message) == ("invalid_config", True)


@pytest.mark.parametrize(
    ("free", "options", "error", "says"),
    [
        (1 * MIB, {}, MemoryProfileError, "the model does not fit: weights .* 1.0 MiB are free on cpu"),
        (2**40, {"kv_cache_bytes": 2**41}, MemoryProfileError, "page pool does not fit: .* K/V 2.0 TiB"),
        (
            2**40,
            {"kv_cache_bytes": 2**16, "max_model_len": 500},
            InvalidConfigError,
            "one sequence of max_model_len=500",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, options: Any, error: type[Exception], says: str
) -> None:
    monkeypatch.setattr(plan, "available_bytes", lambda device: free)
    with pytest.raises(error, match=says):
        LLM(str(llama_folder), dtype="float32", **options)


def test_the_pool_is_sized_from_what_weights_and_activations_leave(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"dtype": "float32", "block_size": 16, "max_num_batched_tokens": 64, "max_num_seqs": 8}
    for free in (4 * MIB, 5 * MIB, 6 * MIB):
        monkeypatch.setattr(plan, "available_bytes", lambda device, free=free: free)
        found = explain(str(llama_folder), **small).plan
        assert found is not None
        memory = found.memory
        assert memory.left == free - memory.weights - memory.activations > 0
        page = found.bytes_per_token * 16
        assert memory.cache == found.num_pages * page == int(memory.left * 0.4) // page * page
    monkeypatch.setattr(plan, "available_bytes", lambda device: 2**40)
    found = explain(str(llama_folder), **small).plan
    assert found is not None
    assert found.full_sequences == 8  # no more than can ever run


def test_the_worst_step_can_be_run_and_measured(llava: LLM) -> None:
    engine = llava.engine
    before = tokens(llava, with_pictures("a <image>", 1))
    peak = measure_step(engine.runner, engine.pool, engine.inputs.mm_processor, llava.plan, filler=9)
    assert peak >= 0
    assert_idle(llava)
    assert tokens(llava, with_pictures("a <image>", 1)) == before


def test_the_worst_step_is_full_of_media_and_text(llava: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Any] = []
    run = llava.engine.runner.run
    monkeypatch.setattr(llava.engine.runner, "run", lambda p, **k: (plans.append(p), run(p, **k))[1])
    measure_step(llava.engine.runner, llava.engine.pool, llava.engine.inputs.mm_processor, llava.plan, filler=9)
    ((*scheduled,),) = plans
    assert sum(s.count for s in scheduled) == llava.plan.step_tokens
    encoded = sum(s.request.items[i].placeholder.length for s in scheduled for i in s.encode)
    assert encoded // 16 == -(-llava.plan.step_tokens // 17)  # each picture stands behind a begin token
    assert_idle(llava)


def test_R073_an_item_that_is_larger_than_foretold_is_refused(faulty: Faulty) -> None:
    class TooFew(LlavaProcessingInfo):
        def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Any) -> dict[str, int]:
            return {"image": 15}

    with faulty("info", TooFew) as llm:
        with pytest.raises(MediaTooLargeError, match=r"takes 16 tokens, but .* at most 15") as caught:
            llm.generate(with_pictures("a <image>", 1), GREEDY)
        assert caught.value.code == "item_too_large"
        assert len(tokens(llm, "hello")[0]) == 64


def test_a_plugin_that_does_not_tell_is_asked_for_its_dummy_inputs(
    faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(LlavaProcessingInfo):
        def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Any) -> dict[str, int]:
            return {}

    with faulty("info", Silent) as llm:
        assert [m.item_tokens for m in llm.plan.media] == [16]

    class Broken(LlavaProcessingInfo):
        def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Any) -> dict[str, int]:
            raise RuntimeError("no idea")

    with faulty("info", Broken) as llm:
        assert [m.item_tokens for m in llm.plan.media] == [None]
        assert "no idea" in caplog.text
        tokens(llm, with_pictures("a <image>", 1))


def test_the_command_prints_the_plan(llava_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", str(llava_folder), "--limit", "image=2", "--kv-cache-bytes", str(MIB)]) == 0
    shown = capsys.readouterr().out
    for word in ("engine-plugin-llava", "up to 16 tokens each, 2 a prompt", "2 × full", "starts", "yes"):
        assert word in shown
    assert run(["explain", str(llava_folder), "--json", "--max-model-len", "99999999", "--kv-cache-bytes", "4096"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["starts"] is False
    assert told["refused"]["code"] == "invalid_config"
    assert told["plan"]["weights" if "weights" in told["plan"] else "memory"]
    assert run(["explain", str(llava_folder), "--limit", "image"]) == 2


def test_the_plan_is_shown_where_somebody_is_there_to_see_it(llama_folder: Path) -> None:
    """A terminal gets it, unless told to be quiet; a pipe does not."""
    pty = pytest.importorskip("pty")
    code = "import sys; from core import LLM; LLM(sys.argv[1], disable_progress=sys.argv[2] == 'quiet').close()"

    def shown(quiet: str) -> str:
        ours, theirs = pty.openpty()
        done = subprocess.run([sys.executable, "-c", code, str(llama_folder), quiet], stderr=theirs, check=True)
        os.close(theirs)
        assert done.returncode == 0
        text = b""
        with open(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # the error is the end
            while part := terminal.read(65536):  # what was written comes by and by, also after its writer has ended
                text += part
        return text.decode()

    assert "pages of 32 tokens" in shown("loud")
    assert shown("quiet") == ""

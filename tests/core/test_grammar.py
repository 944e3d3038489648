"""Structured output: every text fits its grammar; a bad grammar harms nobody."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core import LLM, SamplingParams, StructuredOutputs
from core.errors import GrammarError, InvalidRequestError
from core.grammar.compiler import BYTES_AT_LEAST, CACHE_BYTES, GrammarCompiler
from core.grammar.cursor import GrammarCursor
from core.sampling.structured import GrammarSource

from .conftest import prompt_ids, tokens
from .gate import PATIENCE, wait_until

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bob"]}, "ok": {"type": "boolean"}, "n": {"enum": [1, 2, 30]}},
    "required": ["name", "ok", "n"],
    "additionalProperties": False,
}
LIST = r"""
start: "[" (item ("," item)*)? "]"
item: "a" | "b" | start
"""


@pytest.fixture
def compiler(llama: LLM) -> Iterator[GrammarCompiler]:
    made = GrammarCompiler(llama.get_tokenizer(), llama.engine.inputs.vocab_size, [2])
    yield made
    made.close()


def outputs(llm: LLM, structured: StructuredOutputs, count: int = 6, **params: Any) -> list[Any]:
    made = [
        SamplingParams(**{"temperature": 1.0, "seed": i, "max_tokens": 200, "structured_outputs": structured, **params})
        for i in range(count)
    ]
    return [o.outputs[0] for o in llm.generate([prompt_ids(i, 5) for i in range(count)], made)]


def test_json_fits_its_schema(llama: LLM) -> None:
    for output in outputs(llama, StructuredOutputs(json={**SCHEMA, "x-guidance": {"whitespace_flexible": False}})):
        value = json.loads(output.text)
        assert list(value) == ["name", "ok", "n"]
        assert value["name"] in ("Ann", "Bob")
        assert value["ok"] in (True, False)
        assert value["n"] in (1, 2, 30)
        assert output.finish_reason == "stop"


def test_a_schema_may_be_text_or_a_pydantic_model(llama: LLM) -> None:
    from pydantic import BaseModel

    class Point(BaseModel):
        x: bool
        y: bool

    for schema in (Point, json.dumps(Point.model_json_schema())):
        (output,) = outputs(llama, StructuredOutputs(json=schema), 1, logit_bias=dict.fromkeys(spaces(llama), -100.0))
        Point.model_validate_json(output.text)


def spaces(llm: LLM) -> list[int]:
    """Tokens that are white space: a random model likes to write them without end."""
    engine = llm.engine.inputs
    return [t for t in range(engine.vocab_size) if engine.token_text(t).isspace()]


@pytest.mark.parametrize("pattern", [r"[0-9]{3}-[0-9]{4}", r"(ja|nein|☃){2,5}", r"[0-9]+(\.[0-9]{1,2})? €"])
def test_the_whole_text_matches_a_regular_expression(llama: LLM, pattern: str) -> None:
    for output in outputs(llama, StructuredOutputs(regex=pattern), max_tokens=120):
        if output.finish_reason == "stop":
            assert re.fullmatch(pattern, output.text)
        else:
            assert re.match(pattern[:6], output.text)
    assert any(o.finish_reason == "stop" for o in outputs(llama, StructuredOutputs(regex=r"[0-9]{3}-[0-9]{4}")))


@pytest.mark.parametrize(
    "choices", [["yes", "no"], ['"', "\\", "\n", "a|b", "ä", "😀", "start: x"], ["a", "ab", "abc"]]
)
def test_one_of_the_choices_is_the_whole_text(llama: LLM, choices: list[str]) -> None:
    found = {o.text for o in outputs(llama, StructuredOutputs(choice=choices), 16, max_tokens=20)}
    assert found <= set(choices)
    assert len(found) > 1


def test_a_grammar_with_recursion(llama: LLM) -> None:
    for output in outputs(llama, StructuredOutputs(grammar=LIST), max_tokens=60):
        depth = [output.text[: i + 1].count("[") - output.text[: i + 1].count("]") for i in range(len(output.text))]
        assert all(d > 0 for d in depth[:-1])
        assert set(output.text) <= set("[],ab")
        assert output.finish_reason == "length" or depth[-1] == 0


def test_greedy_output_is_the_likeliest_that_fits(llama: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, structured_outputs=StructuredOutputs(choice=["yes", "no"]))
    (output,) = llama.generate("hello", params)[0].outputs
    free = llama.generate("hello", SamplingParams(temperature=0, max_tokens=1, logprobs=20))[0].outputs[0]
    assert output.text in ("yes", "no")
    assert free.text not in ("y", "ye", "yes", "n", "no")


def test_any_of_the_models_end_tokens_ends_the_text(llama: LLM) -> None:
    compiler = GrammarCompiler(llama.get_tokenizer(), llama.engine.inputs.vocab_size, [2, 3])
    try:
        cursor = GrammarCursor(compiler.compile(StructuredOutputs(choice=["a"]).source))
        cursor.advance(llama.get_tokenizer()("a", add_special_tokens=False)["input_ids"], 0)
        assert allowed(cursor) == {2, 3}
    finally:
        compiler.close()


def allowed(cursor: GrammarCursor) -> set[int]:
    import numpy as np

    mask = np.zeros(cursor.num_words, dtype=np.int32)
    cursor.fill(mask)
    return {i for i in range(32 * len(mask)) if mask[i // 32] >> (i % 32) & 1}


def test_a_cursor_made_anew_stands_where_the_old_one_stood(llama: LLM, compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(GrammarSource("grammar", LIST))
    ids = llama.get_tokenizer()("[a,[b,[]],", add_special_tokens=False)["input_ids"]
    old = GrammarCursor(grammar)
    for n in range(len(ids) + 1):
        old.advance([9, 9, *ids[:n]], 2)
        new = GrammarCursor(grammar)
        new.advance(ids[:n], 0)
        assert allowed(new) == allowed(old) != set()


@pytest.mark.parametrize(
    "structured",
    [
        {"json": {"type": "strin"}},
        {"json": {"type": "string", "pattern": "("}},
        {"json": {"$ref": "#/nowhere"}},
        {"regex": "("},
        {"regex": "(?=look)ahead"},
        {"regex": r"(a)\1"},
        {"grammar": "no rule"},
        {"grammar": 'start: "a" missing'},
        {"grammar": "start: start"},
    ],
)
def test_R021_R023_a_bad_grammar_is_refused_before_anything_is_scheduled_and_a_good_one_follows(
    llama: LLM, structured: dict[str, Any]
) -> None:
    steps = llama.engine.scheduler.num_preemptions
    for _ in range(2):  # the second time it is known
        with pytest.raises(GrammarError) as caught:
            llama.generate("hello", SamplingParams(structured_outputs=structured))
        assert caught.value.code == "invalid_grammar"
        assert "0x" not in str(caught.value)
        assert len(str(caught.value)) < 500
    assert not llama.engine.scheduler.has_work
    assert llama.engine.scheduler.num_preemptions == steps
    (output,) = outputs(llama, StructuredOutputs(choice=["fine"]), 1)
    assert output.text == "fine"


HEAVY = GrammarSource(
    "json", json.dumps({"type": "object", "properties": {f"a{i}": {"type": "string"} for i in range(2000)}})
)


def test_R022_what_takes_too_long_is_killed_and_others_go_on(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = GrammarCompiler(llama.get_tokenizer(), llama.engine.inputs.vocab_size, [2])
    try:
        quick = GrammarSource("regex", "[ab]+")
        compiler.seconds = PATIENCE
        compiler.compile(quick)  # a child is ready
        compiler.seconds = 0.02
        children = list(compiler._idle)
        for _ in range(2):
            with pytest.raises(GrammarError) as caught:
                compiler.compile(HEAVY)
            assert caught.value.code == "grammar_timeout"
            assert [c.alive for c in children] == [False]
            assert compiler._idle == []
            monkeypatch.setattr(compiler, "_make", None)  # nothing is tried again: who repeats it gains nothing
        monkeypatch.undo()
        compiler.seconds = PATIENCE
        assert compiler.compile(GrammarSource("regex", "[cd]+")) is not None
    finally:
        compiler.close()


def test_R022_a_hundred_heavy_grammars_at_once_leave_no_thread_and_no_process_behind(llama: LLM) -> None:
    compiler = GrammarCompiler(llama.get_tokenizer(), llama.engine.inputs.vocab_size, [2], seconds=0.3)
    threads = threading.active_count()

    def one(i: int) -> str | None:
        try:
            compiler.compile(GrammarSource("json", HEAVY.text.replace("a1", f"b{i}_")))
        except GrammarError as e:
            return e.code
        return None

    try:
        with ThreadPoolExecutor(100) as pool:
            codes = set(pool.map(one, range(100)))
        assert "grammar_timeout" in codes
        assert codes <= {"grammar_timeout", None}
        assert len(compiler._idle) <= 2
        assert compiler._flights == {}
    finally:
        compiler.close()
    wait_until(lambda: threading.active_count() <= threads)  # a timer that was cancelled ends when it gets to it


def test_R022_a_heavy_grammar_does_not_disturb_who_runs(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama.engine.rules.grammars, "seconds", 1.0)
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    expected = tokens(llama, [prompt_ids(0, 9)], params)
    stream = llama.generate(prompt_ids(0, 9), params, stream=True)
    found = list(next(stream).outputs[0].token_ids)
    explosive = StructuredOutputs(regex=r"(.*a.{60})+(.*b.{50})+")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(llama.generate, "hello", SamplingParams(structured_outputs=explosive), on_error="return")
        for delta in stream:
            found += delta.outputs[0].token_ids
        (result,) = other.result(PATIENCE)
    assert [found] == expected
    assert result.error is None or isinstance(result.error, GrammarError)


def test_equal_grammars_are_compiled_once_and_kept_within_bounds(compiler: GrammarCompiler) -> None:
    source = GrammarSource("regex", "[xy]+")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: compiler.compile(source), range(16)))
    assert all(m is made[0] for m in made)
    for i in range(20):
        compiler.compile(GrammarSource("regex", f"[xy]{{{i + 1}}}"))
    assert compiler._known.num_bytes <= CACHE_BYTES
    assert compiler._known.num_bytes == 21 * BYTES_AT_LEAST


def test_R024_a_dead_end_ends_its_request_and_no_other(llama: LLM) -> None:
    free = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    expected = tokens(llama, ["hello"], free)[0]
    structured = StructuredOutputs(choice=["a"])
    for stuck in (
        SamplingParams(max_tokens=8, min_tokens=6, structured_outputs=structured),  # nothing but the end may follow
        SamplingParams(max_tokens=8, allowed_token_ids=[9], structured_outputs=structured),
    ):
        found = llama.generate(["hello", "hello"], [stuck, free], on_error="return")
        assert isinstance(found[0].error, GrammarError)
        assert found[0].error.code == "grammar_dead_end"
        assert list(found[1].outputs[0].token_ids) == expected


def test_what_is_not_installed_is_named(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    compiler = GrammarCompiler(llama.get_tokenizer(), llama.engine.inputs.vocab_size, [2])
    with pytest.raises(InvalidRequestError, match=r"engine-plugin-sdk\[grammar\]") as caught:
        compiler.compile(GrammarSource("regex", "a"))
    assert caught.value.code == "unsupported_parameter"


def test_a_model_without_an_end_token_is_told_so(llama: LLM) -> None:
    compiler = GrammarCompiler(llama.get_tokenizer(), llama.engine.inputs.vocab_size, [])
    with pytest.raises(InvalidRequestError, match="end token"):
        compiler.compile(GrammarSource("regex", "a"))

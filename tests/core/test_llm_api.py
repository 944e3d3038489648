"""`LLM` as people use it: outputs, stops, streams, aborts, errors."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import LLM, SamplingParams
from core.detokenizer import Detokenizer
from core.errors import EngineDeadError, InvalidRequestError

from .conftest import GREEDY, SHORT, picture, prompt_ids, tokens
from .gate import PATIENCE


def test_an_output_has_what_vllms_users_expect(llama: LLM) -> None:
    output = llama.generate("hello there", SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, logprobs=1))[0]
    assert output.prompt == "hello there"
    assert output.prompt_token_ids == llama.get_tokenizer()("hello there")["input_ids"]
    assert output.finished
    assert output.num_cached_tokens == 0
    first = output.outputs[0]
    assert (first.index, first.finish_reason, first.stop_reason, len(first.token_ids)) == (0, "length", None, 5)
    assert first.text == llama.get_tokenizer().decode(first.token_ids, skip_special_tokens=True)
    assert len(first.logprobs) == 5
    m = output.metrics
    assert m.arrival_time <= m.first_scheduled_time <= m.first_token_time <= m.finished_time


def test_outputs_come_in_the_order_of_the_prompts(llama: LLM) -> None:
    prompts = [prompt_ids(i, 1 + (i * 7) % 30) for i in range(20)]
    params = [SamplingParams(temperature=0, max_tokens=1 + i % 5, ignore_eos=True) for i in range(20)]
    outputs = llama.generate(prompts, params)
    assert [o.prompt_token_ids for o in outputs] == prompts
    assert [len(o.outputs[0].token_ids) for o in outputs] == [1 + i % 5 for i in range(20)]
    assert len({o.request_id for o in outputs}) == 20


def test_several_completions_of_one_prompt(llama: LLM) -> None:
    output = llama.generate("hello", SamplingParams(n=3, temperature=1.0, seed=1, max_tokens=8, ignore_eos=True))[0]
    assert [c.index for c in output.outputs] == [0, 1, 2]
    assert len({tuple(c.token_ids) for c in output.outputs}) == 3


def test_a_stop_string_ends_the_text_before_it_wherever_tokens_end(llama: LLM) -> None:
    whole = llama.generate("hello", GREEDY)[0].outputs[0].text
    for start in range(4, 20, 5):
        stop = whole[start : start + 3]
        at = whole.index(stop)
        cut = llama.generate("hello", SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, stop=stop))[
            0
        ].outputs[0]
        assert (cut.text, cut.finish_reason, cut.stop_reason) == (whole[:at], "stop", stop)
        kept = SamplingParams(
            temperature=0, max_tokens=64, ignore_eos=True, stop=[stop], include_stop_str_in_output=True
        )
        assert llama.generate("hello", kept)[0].outputs[0].text == whole[: at + len(stop)]


def test_a_stop_token_ends_a_sequence_and_is_named(llama: LLM) -> None:
    free = tokens(llama, "hello")[0]
    stop = free[10]
    output = llama.generate(
        "hello", SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, stop_token_ids=[stop])
    )[0]
    assert list(output.outputs[0].token_ids) == free[: free.index(stop) + 1]
    assert output.outputs[0].stop_reason == stop


@pytest.mark.parametrize("stop", [None, "e", ["zzz", "th"]])
@pytest.mark.parametrize("n", [1, 2])
def test_R095_a_streams_parts_are_the_whole(llama: LLM, stop: Any, n: int) -> None:
    params = SamplingParams(n=n, temperature=1.0, seed=5, max_tokens=48, ignore_eos=True, stop=stop)
    whole = llama.generate("hello", params)[0]
    texts, ids, reasons = [""] * n, [[] for _ in range(n)], [None] * n
    for delta in llama.generate("hello", params, stream=True):
        for part in delta.outputs:
            assert reasons[part.index] is None, "something came after the end"
            texts[part.index] += part.text
            ids[part.index] += part.token_ids
            reasons[part.index] = part.finish_reason
    assert texts == [c.text for c in whole.outputs]
    assert ids == [list(c.token_ids) for c in whole.outputs]
    assert reasons == [c.finish_reason for c in whole.outputs]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=20), junk=st.lists(st.integers(0, 319), max_size=20), data=st.data())
def test_R095_R097_text_that_grows_never_splits_a_character(
    llama: LLM, text: str, junk: list[int], data: st.DataObject
) -> None:
    tokenizer = llama.get_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + junk
    growing, at, pieces = Detokenizer(tokenizer), 0, []
    while at < len(ids):
        step = data.draw(st.integers(1, 4))
        growing.append(ids[at : at + step])
        at += step
        pieces.append(growing.delta(finished=False))
    growing.finish()
    pieces.append(growing.delta(finished=True))
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not junk:
        assert "�" not in "".join(pieces) or "�" in text


def test_abort_ends_a_stream_and_frees_its_pages(llama: LLM) -> None:
    seen = 0
    for delta in llama.generate(
        prompt_ids(0, 9), SamplingParams(temperature=0, max_tokens=200, ignore_eos=True), stream=True
    ):
        seen += 1
        if seen == 3:
            llama.abort(delta.request_id)
    assert delta.finished
    assert delta.outputs[0].finish_reason == "abort"
    assert seen < 10
    assert llama.engine.pool.num_free == llama.engine.pool.num_pages


def test_a_stream_that_is_left_frees_its_pages(llama: LLM) -> None:
    stream = llama.generate(prompt_ids(0, 9), GREEDY, stream=True)
    next(stream)
    stream.close()
    assert not llama.engine.scheduler.has_work
    assert llama.engine.pool.num_free == llama.engine.pool.num_pages


def test_abort_from_another_thread(llama: LLM) -> None:
    long = SamplingParams(temperature=0, max_tokens=480, ignore_eos=True)
    stream = llama.generate(prompt_ids(0, 9), long, stream=True)
    name = next(stream).request_id
    thread = threading.Thread(target=llama.abort, args=(name,))
    thread.start()  # from here on it aborts beside the steps, whenever it gets to it
    parts = [next(stream)]
    thread.join(PATIENCE)
    parts += stream
    assert parts[-1].finished
    assert parts[-1].outputs[0].finish_reason == "abort"
    assert len(parts) <= 2


def test_errors_name_the_prompt_and_nothing_is_started(llama: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="prompt 1: "):
        llama.generate(["fine", [9, -1]], GREEDY)
    outputs = llama.generate(["fine", [9, -1], "fine"], GREEDY, on_error="return")
    assert [o.error is None for o in outputs] == [True, False, True]
    assert outputs[1].outputs == []
    assert outputs[0].outputs[0].token_ids == outputs[2].outputs[0].token_ids
    with pytest.raises(InvalidRequestError, match="on_error"):
        llama.generate("x", GREEDY, on_error="ignore")
    with pytest.raises(InvalidRequestError, match="2 prompts need"):
        llama.generate(["a", "b"], [GREEDY] * 3)


def test_an_interrupt_leaves_the_engine_clean(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, calls = llama.engine.runner, []
    run = runner.run

    def interrupted(plan: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(plan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(plan, *args, **kwargs)

    monkeypatch.setattr(runner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llama.generate([prompt_ids(i, 9) for i in range(3)], GREEDY)
    monkeypatch.undo()
    assert llama.engine.pool.num_free == llama.engine.pool.num_pages
    assert len(tokens(llama, "hello")[0]) == 64


def test_R093_two_engines_in_one_process_do_not_meet(llama: LLM, llama_folder: Path) -> None:
    expected = tokens(llama, "hello")
    with LLM(str(llama_folder), dtype="float32", block_size=4) as other:
        a = llama.generate("hello", GREEDY, stream=True)
        b = other.generate("hello", GREEDY, stream=True)
        found: list[list[int]] = [[], []]
        for x, y in zip(a, b):
            found[0] += x.outputs[0].token_ids
            found[1] += y.outputs[0].token_ids
        assert found == expected * 2


def test_a_closed_engine_says_so(llama_folder: Path) -> None:
    with LLM(str(llama_folder), dtype="float32") as llm:
        pass
    with pytest.raises(EngineDeadError, match="closed"):
        llm.generate("hello", GREEDY)


def test_chat_takes_openais_parts_and_huggingfaces(llava: LLM, tmp_path: Path) -> None:
    picture(5).save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    text = {"type": "text", "text": "What is it?"}
    import base64

    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    forms: list[dict[str, Any]] = [
        {"type": "image", "image": picture(5)},
        {"type": "image", "path": str(tmp_path / "p.png")},
        {"type": "image", "image": data},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image_url", "image_url": uri},
        {"type": "input_image", "image_url": uri},
    ]
    answers = [llava.chat([{"role": "user", "content": [form, text]}], GREEDY)[0] for form in forms]
    assert len({tuple(a.outputs[0].token_ids) for a in answers}) == 1
    both = llava.chat([[{"role": "user", "content": "hi"}], [{"role": "user", "content": [forms[0], text]}]], GREEDY)
    assert len(both) == 2


def test_a_chat_template_of_ones_own(llama_folder: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}<<{{ m.content }}>>{% endfor %}"
    (tmp_path / "t.jinja").write_text(template)
    for given_template in (template, str(tmp_path / "t.jinja")):
        with LLM(str(llama_folder), dtype="float32", chat_template=given_template) as llm:
            output = llm.chat([{"role": "user", "content": "hi"}], SamplingParams(max_tokens=1))[0]
            assert output.prompt == "<<hi>>"
    with LLM(str(llama_folder), dtype="float32", chat_template="{{ raise_exception('not so') }}") as llm:
        with pytest.raises(InvalidRequestError, match="not so") as caught:
            llm.chat([{"role": "user", "content": "hi"}], GREEDY)
        assert caught.value.code == "template_error"


def test_R020_a_model_without_a_template_names_the_fix(llama_folder: Path, tmp_path: Path) -> None:
    for file in llama_folder.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with LLM(str(tmp_path), dtype="float32") as llm, pytest.raises(InvalidRequestError, match="chat_template=") as said:
        llm.chat([{"role": "user", "content": "hi"}], GREEDY)
    assert "--chat-template" in said.value.message  # who serves the model starts it so
    assert said.value.status == 400


def test_a_conversation_of_several_turns(llava: LLM) -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "first?"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "image", "image": picture(2)}]},
    ]
    output = llava.chat(turns, GREEDY)[0]
    image_id = llava.get_tokenizer().convert_tokens_to_ids("<image>")
    one = llava.chat(turns[:2], SamplingParams(max_tokens=1))[0].prompt_token_ids.count(image_id)
    assert output.prompt_token_ids.count(image_id) == 2 * one


def test_nothing_is_printed_where_nobody_looks(llama: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    llama.generate(["a", "b", "c"], SamplingParams(max_tokens=2))
    assert capfd.readouterr() == ("", "")


def test_priorities_are_one_for_all_or_one_for_each(llama: LLM) -> None:
    prompts = [prompt_ids(i, 5) for i in range(3)]
    assert tokens(llama, prompts, SHORT) == [
        list(o.outputs[0].token_ids) for o in llama.generate(prompts, SHORT, priority=[2, 0, 1])
    ]
    for bad in ([1], 0.5, [0, 1, "2"], [0, True, 1]):
        with pytest.raises(InvalidRequestError, match="whole number"):
            llama.generate(prompts, SHORT, priority=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "not a int"),
        ({"temperature": 0}, "not a dict"),
        ("greedy", "not a str"),
        ([SHORT, {"temperature": 0}], "not a dict"),
        ([SHORT], "2 prompts need one SamplingParams or 2 of them, not 1"),
    ],
)
def test_what_is_no_sampling_params_is_named(llama: LLM, given: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        llama.generate(["a", "b"], given)
    assert caught.value.param == "sampling_params"

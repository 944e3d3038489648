"""The `openai` client drives every endpoint: sync, async and streaming. What comes is what `core.LLM` gives for the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from core import LLM, SamplingParams

from ..again import one_that
from .conftest import asking, data_uri, error_of, png

PICTURE = data_uri(png())
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "extra_body": {"ignore_eos": True}}
SAMPLED: dict[str, Any] = {**GREEDY, "temperature": 1, "seed": 7, "n": 3}
MINE = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
CONVERSATIONS = [
    asking("hello"),
    asking("what is it?", PICTURE),
    asking("and these?", PICTURE, data_uri(png(1, 30, 90))),
]


def texts_of(chunks: list[ChatCompletionChunk]) -> dict[int, str]:
    """The text of each answer of a stream."""
    out: dict[int, str] = {}
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
        for choice in chunk.choices:
            out[choice.index] = out.get(choice.index, "") + (choice.delta.content or "")
    return out


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["text", "picture", "pictures"])
def test_chat_answers_as_the_engine_in_process(client: openai.OpenAI, tiny: LLM, messages: list[Any]) -> None:
    found = client.chat.completions.create(model="tiny", messages=messages, **GREEDY)
    ChatCompletion.model_validate(found.model_dump(), strict=True)
    mine = tiny.chat(messages, MINE)[0]
    assert found.choices[0].message.content == mine.outputs[0].text
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(mine.prompt_token_ids), 24)


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["text", "picture", "pictures"])
def test_R095_a_stream_joined_is_the_whole(client: openai.OpenAI, messages: list[Any]) -> None:
    whole = client.chat.completions.create(model="tiny", messages=messages, **SAMPLED)

    def streamed() -> list[ChatCompletionChunk]:
        return list(client.chat.completions.create(model="tiny", messages=messages, stream=True, **SAMPLED))

    chunks = one_that(lambda found: len(found) > 10, streamed)
    assert texts_of(chunks) == {c.index: c.message.content for c in whole.choices}
    assert len(chunks) > 10


@pytest.mark.parametrize("stop", ["e", ["th", " a"], ["\n"]])
def test_R095_a_stop_string_is_nowhere_in_the_text(client: openai.OpenAI, tiny: LLM, stop: Any) -> None:
    asked = {"model": "tiny", "messages": asking("hello"), **SAMPLED, "max_tokens": 60, "stop": stop}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(stream=True, **asked))
    assert texts_of(chunks) == {c.index: c.message.content for c in whole.choices}
    for choice in whole.choices:
        assert not any(s in (choice.message.content or "") for s in ([stop] if isinstance(stop, str) else stop))


def test_R096_a_stream_tells_usage_logprobs_and_every_answer(client: openai.OpenAI, tiny: LLM) -> None:
    asked = {**SAMPLED, "logprobs": True, "top_logprobs": 3, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="tiny", messages=asking("hello"), stream=True, **asked))
    *rest, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 72
    assert all(chunk.usage is None for chunk in rest)
    for index in range(3):
        mine = [choice for chunk in rest for choice in chunk.choices if choice.index == index]
        assert mine[0].delta.role == "assistant"
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == ["length"]
        tokens = [entry for choice in mine if choice.logprobs for entry in choice.logprobs.content or ()]
        assert len(tokens) == 24
        assert all(1 <= len(entry.top_logprobs) <= 3 for entry in tokens)


def test_chat_logprobs_are_the_models(client: openai.OpenAI, tiny: LLM) -> None:
    found = client.chat.completions.create(model="tiny", messages=asking("hi"), logprobs=True, top_logprobs=2, **GREEDY)
    from dataclasses import replace

    mine = tiny.chat(asking("hi"), replace(MINE, logprobs=2))[0].outputs[0]
    assert found.choices[0].logprobs is not None
    for entry, token, expected in zip(found.choices[0].logprobs.content or (), mine.token_ids, mine.logprobs or ()):
        assert entry.logprob == pytest.approx(expected[token].logprob, abs=1e-4)
        assert entry.token == expected[token].decoded_token
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


def test_a_seed_repeats_the_draw(client: openai.OpenAI) -> None:
    drawn = [client.chat.completions.create(model="tiny", messages=asking("go"), **SAMPLED) for _ in range(2)]
    assert [c.message.content for c in drawn[0].choices] == [c.message.content for c in drawn[1].choices]
    assert len({c.message.content for c in drawn[0].choices}) > 1


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {"enum": [1, 2]}},
                                                                       "required": ["a"], "additionalProperties": False}}},
    ],
    ids=["object", "schema"],
)  # fmt: skip
def test_a_response_format_is_kept_to(client: openai.OpenAI, form: Any) -> None:
    found = client.chat.completions.create(
        model="tiny", messages=asking("json"), response_format=form, temperature=1, seed=3, max_tokens=200
    )
    if found.choices[0].finish_reason == "stop":
        value = json.loads(found.choices[0].message.content or "")
        assert isinstance(value, dict)
        assert form["type"] == "json_object" or value in ({"a": 1}, {"a": 2})
    else:
        assert (found.choices[0].message.content or "").lstrip().startswith("{")


@pytest.mark.parametrize(
    "prompt",
    ["hello there", ["one", "two", "three"], [5, 6, 7, 8], [[9, 10, 11], [12, 13]]],
    ids=["text", "texts", "ids", "lists"],
)
def test_completions_of_every_form_of_prompt(client: openai.OpenAI, tiny: LLM, prompt: Any) -> None:
    found = client.completions.create(model="tiny", prompt=prompt, **GREEDY)
    several = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    mine = [tiny.generate(p, MINE)[0].outputs[0].text for p in several]
    assert [c.text for c in found.choices] == mine
    assert [c.index for c in found.choices] == list(range(len(several)))
    chunks = list(client.completions.create(model="tiny", prompt=prompt, stream=True, **GREEDY))
    streamed = ["".join(c.text for chunk in chunks for c in chunk.choices if c.index == i) for i in range(len(several))]
    assert streamed == mine


def test_completions_echo_the_prompt_with_its_logprobs(client: openai.OpenAI, tiny: LLM) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "hello there", "echo": True, "logprobs": 2, **GREEDY}
    found = client.completions.create(**asked).choices[0]
    assert found.text.startswith("hello there")
    assert found.logprobs is not None
    assert found.logprobs.token_logprobs is not None
    assert found.logprobs.tokens is not None
    assert found.logprobs.token_logprobs[0] is None
    ids = tiny.get_tokenizer()("hello there")["input_ids"]
    assert len(found.logprobs.tokens) == len(ids) + 24
    alone = client.completions.create(**{**asked, "max_tokens": 0}).choices[0]
    assert alone.text == "hello there"
    assert alone.logprobs is not None
    assert alone.logprobs.token_logprobs == pytest.approx(found.logprobs.token_logprobs[: len(ids)], abs=1e-4)


def test_models_say_what_they_can(client: openai.OpenAI) -> None:
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert set(models) == {"tiny", "ear"}
    assert models["tiny"]["modalities"] == ["text", "image"]
    assert models["tiny"]["plugin"].startswith("engine-plugin-llava ")
    assert "transcription" in models["ear"]["tasks"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_R010_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="tine", messages=asking("x"))
    assert refused.value.code == "model_not_found"
    assert "'tiny'" in refused.value.message


def test_R010_a_model_of_another_task_says_what_it_is_for(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.audio.transcriptions.create(model="tiny", file=b"x")
    assert refused.value.code == "unsupported_task"
    assert "generate" in refused.value.message


def test_R020_a_model_without_a_chat_template_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="ear", messages=asking("x"))
    assert refused.value.code == "unsupported_task"
    assert "--chat-template" in refused.value.message


def test_R010_what_only_conversations_could_bring_is_not_offered_without_a_template(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="ear", prompt="x")
    assert refused.value.code == "unsupported_task"
    assert {model.id: model.to_dict() for model in client.models.list()}["ear"]["tasks"] == ["transcription"]


def test_tokens_there_and_back(http: httpx2.Client, tiny: LLM) -> None:
    text = "Grüße, 🌍!"
    found = http.post("/tokenize", json={"model": "tiny", "prompt": text, "return_token_strs": True}).json()
    assert found["tokens"] == tiny.get_tokenizer()(text)["input_ids"]
    assert found["count"] == len(found["token_strs"])
    back = http.post("/detokenize", json={"model": "tiny", "tokens": found["tokens"][1:]}).json()
    assert back["prompt"] == text
    chat = http.post("/tokenize", json={"model": "tiny", "messages": asking("hello", PICTURE)}).json()
    assert chat["tokens"] == tiny.chat(asking("hello", PICTURE), MINE)[0].prompt_token_ids


def test_responses_are_what_chats_are(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model="tiny", messages=asking("hello", PICTURE), temperature=0, max_tokens=24)
    content: Any = [{"type": "input_image", "image_url": PICTURE}, {"type": "input_text", "text": "hello"}]
    asked: dict[str, Any] = {"model": "tiny", "input": [{"role": "user", "content": content}], "temperature": 0,
                             "max_output_tokens": 24, "store": False}  # fmt: skip
    whole = client.responses.create(**asked)
    assert whole.output_text == chat.choices[0].message.content
    assert whole.status in ("incomplete", "completed")
    assert whole.usage is not None
    assert whole.usage.output_tokens <= 24
    events = list(client.responses.create(stream=True, **asked))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == f"response.{whole.status}"
    assert events[-1].response.output_text == whole.output_text


def test_responses_store_nothing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="tiny", input="x", previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"


def test_R002_what_nobody_knows_is_passed_over_with_a_warning(client: openai.OpenAI) -> None:
    found = client.chat.completions.with_raw_response.create(
        model="tiny", messages=asking("x"), max_tokens=2, extra_body={"best_guess": 1, 'a"\nb': 2}
    )
    assert found.http_response.status_code == 200
    assert "best_guess" in found.headers["warning"]


@pytest.mark.parametrize(
    ("extra", "param", "code"),
    [
        ({"n": 0}, "n", "invalid_request"),
        ({"n": 10**9}, "n", "invalid_request"),
        ({"max_tokens": 0}, "max_tokens", "invalid_request"),
        ({"max_tokens": 10**6}, "max_tokens", "context_length_exceeded"),
        ({"top_p": 0}, "top_p", "invalid_request"),
        ({"temperature": -1}, "temperature", "invalid_request"),
        ({"logprobs": True, "top_logprobs": 50}, "logprobs", "invalid_request"),
        ({"top_logprobs": 5}, "top_logprobs", "invalid_request"),
        ({"stop": ["a"] * 10**5}, "stop", "invalid_request"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias", "invalid_token"),
        ({"seed": 2**64}, "seed", "invalid_request"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_request"),
        ({"messages": [{"role": "user", "content": "x" * 200_000}]}, "messages", "context_length_exceeded"),
        ({"max_completion_tokens": 3, "max_tokens": 4}, "max_tokens", "invalid_request"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_request"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_request"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_R011_R013_parameters_out_of_range_are_named(client: openai.OpenAI, extra: Any, param: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=asking("x"), extra_body=extra)
    assert refused.value.code == code
    assert refused.value.param == param
    assert refused.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("kwargs", [{"tokenize": True}, {"messages": []}, {"chat_template": "x"}, {"tools": []}])
def test_R018_reserved_names_are_not_passed_to_a_template(client: openai.OpenAI, kwargs: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=asking("x"), extra_body={"chat_template_kwargs": kwargs})


def test_R018_a_request_brings_no_template(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=asking("x"), extra_body={"chat_template": "{{ 1 }}"})
    assert refused.value.param == "chat_template"


@pytest.mark.parametrize(
    "structured",
    [
        {"json": {"type": "nonsense"}},
        {"regex": "(("},
        {"grammar": "start: ("},
        {"json": "{"},
        {},
        {"json": {}, "regex": "a"},
    ],
)
def test_R021_grammars_that_are_none_are_refused(client: openai.OpenAI, structured: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="tiny", messages=asking("x"), extra_body={"structured_outputs": structured}
        )
    assert refused.value.code == "invalid_grammar"


@pytest.mark.asyncio
async def test_async_requests_side_by_side(aclient: openai.AsyncOpenAI, tiny: LLM) -> None:
    prompts = [f"number {i}" for i in range(12)]
    mine = [output.outputs[0].text for output in tiny.generate(prompts, MINE)]

    async def ask(i: int) -> str:
        if i % 2:
            return (await aclient.completions.create(model="tiny", prompt=prompts[i], **GREEDY)).choices[0].text
        stream = await aclient.completions.create(model="tiny", prompt=prompts[i], stream=True, **GREEDY)
        return "".join([chunk.choices[0].text async for chunk in stream])

    assert await asyncio.gather(*map(ask, range(12))) == mine


@pytest.mark.asyncio
async def test_R083_requests_of_one_id_do_not_meet(aclient: openai.AsyncOpenAI, tiny: LLM) -> None:
    prompts = [f"again {i}" for i in range(16)]
    mine = [output.outputs[0].text for output in tiny.generate(prompts, MINE)]

    async def ask(prompt: str) -> str:
        headers = {"X-Request-Id": "the-same"}
        found = await aclient.completions.create(model="tiny", prompt=prompt, extra_headers=headers, **GREEDY)
        return found.choices[0].text

    assert await asyncio.gather(*map(ask, prompts)) == mine


def test_responses_take_what_chats_take_besides(http: httpx2.Client) -> None:
    more: dict[str, Any] = {"model": "tiny", "temperature": 1, "seed": 7, "top_k": 9, "ignore_eos": True, "priority": 3,
                            "logit_bias": {"40": 5}, "chat_template_kwargs": {"x": 1}, "cache_salt": "s"}  # fmt: skip
    chat = http.post("/v1/chat/completions", json={**more, "messages": asking("x"), "max_tokens": 24}).json()
    said = http.post("/v1/responses", json={**more, "input": "x", "max_output_tokens": 24})
    assert "warning" not in said.headers
    (content,) = said.json()["output"][0]["content"]
    assert content["text"] == chat["choices"][0]["message"]["content"] != ""
    cut = http.post("/v1/responses", json={**more, "input": "x", "stop": content["text"][3:6]}).json()
    assert cut["output"][0]["content"][0]["text"] == content["text"][:3]


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"timeout": 1e-6}, 504, "timeout"),
        ({"timeout": 0}, 400, "timeout"),
        ({"priority": 2**63}, 400, "priority"),
        ({"top_k": -7}, 400, "top_k"),
        ({"chat_template": "{{ 1 }}"}, 400, "chat_template"),
        ({"structured_outputs": {"regex": "a"}, "text": {"format": {"type": "json_object"}}}, 400, "text.format"),
    ],
)
def test_R003_what_responses_take_is_checked(
    http: httpx2.Client, more: dict[str, Any], status: int, param: str
) -> None:
    response = http.post("/v1/responses", json={"model": "tiny", "input": "x", **more})
    assert (response.status_code, error_of(response)["param"]) == (status, param)

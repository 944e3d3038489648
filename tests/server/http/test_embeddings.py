"""`/v1/embeddings`, as OpenAI's client and curl use it, `/v1/rerank` and `/classify`: through the engines' own processes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from engine_plugin_bert import tiny

from core import LLM

from .conftest import PATIENCE, Served, Start, error_of, shared, wait_until_idle

TEXTS = ["a", "What is shown in the picture?", "the quick brown fox " * 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bert")
    tiny.bert(0, made)
    return made


@pytest.fixture(scope="module")
def judging_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("judge")
    tiny.classifier(0, made)
    return made


@pytest.fixture(scope="module")
def judge(judging_folder: Path) -> Iterator[LLM]:
    with LLM(str(judging_folder), dtype="float32", disable_progress=True) as llm:
        yield llm


@pytest.fixture(scope="module")
def expected(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", disable_progress=True) as llm:
        yield llm


@pytest.fixture(scope="module")
def pooling(start: Start, folder: Path, judging_folder: Path) -> Iterator[Served]:
    names = ["--served-model-name", "bert", "--served-model-name", "judge"]
    options = ["--dtype", "float32", "--max-queued-requests", "8"]
    with start(str(folder), str(judging_folder), *names, *options) as found:
        assert found.wait_for("curl .*/v1/embeddings")
        with shared(found):
            yield found
        assert found.end() == 0, found.log


@pytest.fixture(scope="module")
def client(pooling: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{pooling.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)


@pytest.fixture(scope="module")
def http(pooling: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=pooling.url, timeout=PATIENCE) as found:
        yield found
        wait_until_idle(found)


@pytest.mark.parametrize("form", ["base64", "float"])
def test_vectors_are_those_of_llm_embed(client: openai.OpenAI, expected: LLM, form: str) -> None:
    # The client asks for base64 by itself, and reads it.
    encoding = {} if form == "base64" else {"encoding_format": "float"}
    reply = client.embeddings.create(model="bert", input=TEXTS, **encoding)
    assert [entry.index for entry in reply.data] == [0, 1, 2]
    assert reply.model == "bert"
    ours = expected.embed(TEXTS)
    for entry, output in zip(reply.data, ours):
        assert np.abs(np.array(entry.embedding) - output.embedding).max() < 1e-6
    tokens = sum(len(output.prompt_token_ids) for output in ours)
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (tokens, tokens)


def test_a_text_its_ids_and_lists_of_ids_are_inputs(client: openai.OpenAI, expected: LLM) -> None:
    vector = client.embeddings.create(model="bert", input=TEXTS[1]).data[0].embedding
    ids = expected.get_tokenizer()(TEXTS[1])["input_ids"]
    assert client.embeddings.create(model="bert", input=ids).data[0].embedding == vector
    both = client.embeddings.create(model="bert", input=[ids, [5, 6]]).data
    assert np.allclose(both[0].embedding, vector, atol=1e-6)
    assert len(both) == 2


def test_more_inputs_than_may_wait_are_one_request(client: openai.OpenAI, expected: LLM) -> None:
    texts = [f"number {i}" for i in range(150)]
    made = client.embeddings.create(model="bert", input=texts).data
    assert np.allclose([e.embedding for e in made], [o.embedding for o in expected.embed(texts)], atol=1e-6)


def test_dimensions_and_truncation(client: openai.OpenAI, expected: LLM) -> None:
    short = client.embeddings.create(model="bert", input="a fox", dimensions=16).data[0].embedding
    assert np.allclose(short, expected.embed("a fox", dimensions=16)[0].embedding, atol=1e-6)
    long = "fox " * 400
    cut = client.embeddings.create(model="bert", input=long, extra_body={"truncate_prompt_tokens": -1})
    assert cut.usage.prompt_tokens == 192
    cut = client.embeddings.create(model="bert", input=long, extra_body={"truncate_prompt_tokens": 9})
    assert np.allclose(cut.data[0].embedding, expected.embed(long, truncate=9)[0].embedding, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": ""}, "invalid_request", "input"),
        ({"input": []}, None, None),
        ({"input": ["fine", ""]}, "invalid_request", "input"),
        ({"input": [[]]}, "invalid_request", "input"),
        ({"input": ["x"] * 2049}, None, None),
        ({"input": [999_999]}, "invalid_token", "prompt_token_ids"),
        ({"input": "x", "dimensions": 65}, "invalid_request", "dimensions"),
        ({"input": "x", "dimensions": 0}, None, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, None, "encoding_format"),
        ({"input": "fox " * 400}, "context_length_exceeded", "input"),
        ({"input": 3}, None, None),
    ],
)
def test_what_is_wrong_is_told_in_openais_form(
    http: httpx2.Client, body: dict, code: str | None, param: str | None
) -> None:
    response = http.post("/v1/embeddings", json={"model": "bert", **body})
    assert response.status_code == 400
    error = error_of(response)
    assert code in (None, error["code"])
    assert param in (None, error["param"])


def test_base64_is_little_endian_float32(http: httpx2.Client, expected: LLM) -> None:
    reply = http.post("/v1/embeddings", json={"input": "a fox", "encoding_format": "base64"}).json()
    found = np.frombuffer(base64.b64decode(reply["data"][0]["embedding"]), dtype="<f4")
    assert np.allclose(found, expected.embed("a fox")[0].embedding, atol=1e-6)
    assert reply["object"] == "list"
    assert reply["data"][0]["object"] == "embedding"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ("/v1/completions", {"prompt": "hello"}),
        ("/v1/responses", {"input": "hello"}),
    ],
)
def test_a_model_that_pools_is_offered_for_nothing_else(http: httpx2.Client, path: str, body: dict) -> None:
    response = http.post(path, json={"model": "bert", **body})
    assert response.status_code == 404
    assert error_of(response)["code"] == "unsupported_task"
    assert "can generate text (bert: embed; judge: classify, score)" in error_of(response)["message"]
    assert http.get("/v1/models").json()["data"][0]["tasks"] == ["embed"]


def test_a_model_that_generates_makes_no_embeddings(served: Served) -> None:
    from .conftest import KEY

    with httpx2.Client(base_url=served.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE) as other:
        response = other.post("/v1/embeddings", json={"model": "tiny", "input": "x"})
    assert response.status_code == 404
    assert "no model that is served here can make embeddings" in error_of(response)["message"]


def test_documents_are_sorted_by_how_well_they_answer(http: httpx2.Client, judge: LLM) -> None:
    asked = {"query": "a red fox", "documents": TEXTS, "return_documents": True}
    reply = http.post("/v1/rerank", json=asked).json()
    scores = [output.score for output in judge.score("a red fox", TEXTS)]
    best = sorted(range(len(TEXTS)), key=lambda index: -scores[index])
    assert [result["index"] for result in reply["results"]] == best
    for result in reply["results"]:
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-6)
        assert result["document"] == {"text": TEXTS[result["index"]]}
    pairs = [judge.get_tokenizer()("a red fox", text)["input_ids"] for text in TEXTS]
    assert reply["usage"]["total_tokens"] == sum(map(len, pairs))
    (first,) = http.post("/v1/rerank", json={**asked, "top_n": 1, "return_documents": False}).json()["results"]
    assert first == {"index": best[0], "relevance_score": pytest.approx(scores[best[0]], abs=1e-6)}
    cut = http.post("/v1/rerank", json={"query": "fox", "documents": ["dog " * 400], "truncate_prompt_tokens": 20})
    assert cut.json()["usage"]["total_tokens"] == 20


def test_classes_of_texts(http: httpx2.Client, judge: LLM) -> None:
    data = http.post("/classify", json={"model": "judge", "input": TEXTS}).json()["data"]
    for entry, output in zip(data, judge.classify(TEXTS), strict=True):
        assert entry["label"] == output.label == "LABEL_0"
        assert entry["probs"] == pytest.approx(output.probs.tolist(), abs=1e-6)
        assert entry["num_classes"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/v1/rerank", {"model": "bert", "query": "x", "documents": ["y"]}, 404, "unsupported_task", "model"),
        ("/classify", {"model": "bert", "input": "x"}, 404, "unsupported_task", "model"),
        ("/v1/embeddings", {"model": "judge", "input": "x"}, 404, "unsupported_task", "model"),
        ("/v1/rerank", {"query": "x", "documents": []}, 400, None, "documents"),
        ("/v1/rerank", {"query": "x", "documents": ["y"], "top_n": 0}, 400, None, "top_n"),
        ("/v1/rerank", {"documents": ["y"]}, 400, None, None),
        ("/v1/rerank", {"query": "x", "documents": ["dog " * 400]}, 400, "context_length_exceeded", "documents"),
        ("/classify", {"input": [""]}, 400, "invalid_request", "input"),
    ],
)
def test_what_is_wrong_with_pairs_and_classes(
    http: httpx2.Client, path: str, body: dict, status: int, code: str | None, param: str | None
) -> None:
    response = http.post(path, json=body)
    assert response.status_code == status
    error = error_of(response)
    assert code in (None, error["code"])
    assert param in (None, error["param"])


def test_what_was_made_is_counted(http: httpx2.Client) -> None:
    def counted() -> float:
        lines = http.get("/metrics").text.splitlines()
        return next(
            float(line.split()[-1]) for line in lines if line.startswith('engine_prompt_tokens_total{model="bert"')
        )

    before = counted()
    tokens = http.post("/v1/embeddings", json={"input": TEXTS}).json()["usage"]["prompt_tokens"]
    assert counted() == before + tokens

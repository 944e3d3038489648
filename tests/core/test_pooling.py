"""Vectors, classes and scores in the place of text: `LLM.embed`, `classify` and `score`, over tiny BERTs and a tiny Llama."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_plugin_bert import tiny
from torch import Tensor

from core import LLM, AsyncLLM
from core.errors import (
    ContextLengthError,
    InvalidConfigError,
    InvalidRequestError,
    NumericalError,
    PluginContractError,
    RequestAborted,
    RequestTimeoutError,
)
from core.pooling.params import PoolingParams
from core.runner import StepResult
from core.scheduler import StepPlan
from sdk import registry
from sdk.layers import VocabParallelEmbedding
from sdk.pooling import Pooler
from sdk.testing.reference import assert_close, load_hf

from .conftest import assert_idle, picture

TEXTS = ["a", "What is shown in the picture?", "the quick brown fox " * 8, "Der schnelle braune Fuchs; 快速的棕色狐狸"]
EXACT: dict[str, Any] = {"dtype": "float32", "disable_progress": True}
BERT = "BertModel"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bert")
    tiny.bert(0, made)
    return made


@pytest.fixture(scope="module")
def bert(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), **EXACT) as llm:
        yield llm


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    made = tmp_path_factory.mktemp("reranker")
    tiny.classifier(0, made)
    with LLM(str(made), **EXACT) as llm:
        yield llm


@pytest.fixture(autouse=True)
def _idle(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("bert", "reranker"):
        if name in request.fixturenames:
            assert_idle(request.getfixturevalue(name))


def states(folder: Path, *texts: str) -> Tensor:
    """What transformers computes of a text or a pair: `(tokens, hidden)`."""
    from transformers import AutoTokenizer

    given = AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt")
    with torch.inference_mode():
        found: Tensor = load_hf(folder).base_model(**given, output_hidden_states=True).hidden_states[-1][0]
    return found


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def test_an_embedding_is_transformers_pooled_and_normalised_as_the_folder_says(bert: LLM, folder: Path) -> None:
    for text, output in zip(TEXTS, bert.embed(TEXTS)):
        assert_close(torch.from_numpy(output.embedding), unit(states(folder, text).mean(0)))
        assert output.embedding.dtype == np.float32
        assert output.prompt_token_ids == bert.get_tokenizer()(text)["input_ids"]
    plain = bert.embed(TEXTS[1], normalize=False)[0].embedding
    assert_close(torch.from_numpy(plain), states(folder, TEXTS[1]).mean(0))


def test_a_text_has_the_same_vector_in_any_company_and_any_budget(folder: Path, bert: LLM) -> None:
    crowd = [[random.Random(i).randrange(4, 300) for _ in range(1 + 7 * i % 90)] for i in range(40)]
    alone = [bert.embed(ids)[0].embedding for ids in crowd]
    for options in ({}, {"max_num_batched_tokens": 64}, {"max_num_batched_tokens": 1}, {"max_num_seqs": 3}):
        with LLM(str(folder), **EXACT, **options) as llm:
            together = llm.embed(crowd)
            assert max(abs(a - o.embedding).max() for a, o in zip(alone, together)) < 1e-6
            assert_idle(llm)


def test_the_token_budget_holds_and_no_prompt_is_cut_by_it(folder: Path) -> None:
    steps: list[list[int]] = []
    with LLM(str(folder), **EXACT, max_num_batched_tokens=50) as llm:
        assert llm.plan.step_tokens == 192  # room for the longest
        run = llm.engine.runner.run

        def noted(plan: StepPlan) -> StepResult:
            steps.append([s.count for s in plan])
            return run(plan)

        llm.engine.runner.run = noted  # type: ignore[method-assign,assignment]
        llm.embed([[5] * n for n in (100, 90, 5, 150, 40)])
    assert steps == [[100, 90], [5, 150], [40]]


def test_no_pages_are_needed(bert: LLM) -> None:
    assert bert.plan.bytes_per_token == 0
    assert bert.engine.pages == {}


def test_a_vector_may_be_shortened(bert: LLM) -> None:
    whole, short = bert.embed("a fox")[0].embedding, bert.embed("a fox", dimensions=16)[0].embedding
    assert_close(torch.from_numpy(short), unit(torch.from_numpy(whole[:16])))
    bare = bert.embed("a fox", dimensions=16, normalize=False)[0].embedding
    assert_close(torch.from_numpy(bare), torch.from_numpy(bert.embed("a fox", normalize=False)[0].embedding[:16]))
    with pytest.raises(InvalidRequestError, match="dimensions=65, but this model's embeddings have 64"):
        bert.embed("a fox", dimensions=65)
    fine, wrong = bert.embed(["a fox", ""], on_error="return")
    assert (fine.error, wrong.embedding.size) == (None, 0)
    assert isinstance(wrong.error, InvalidRequestError)


def test_a_text_that_is_too_long_is_refused_or_cut_as_the_tokenizer_cuts(bert: LLM) -> None:
    long = "fox " * 400
    with pytest.raises(ContextLengthError, match="sequences hold 192; cut it with truncate=True"):
        bert.embed(long)
    whole = bert.embed(long, truncate=True)[0].prompt_token_ids
    assert (len(whole), whole[0], whole[-1]) == (192, 1, 2)  # sentence_bert_config.json says 192 of the model's 256
    assert whole == bert.get_tokenizer()(long, truncation=True, max_length=192)["input_ids"]
    assert len(bert.embed(long, truncate=7)[0].prompt_token_ids) == 7
    assert len(bert.embed([5] * 300, truncate=True)[0].prompt_token_ids) == 192
    assert bert.embed("fox", truncate=True)[0].prompt_token_ids == bert.embed("fox")[0].prompt_token_ids
    assert len(bert.embed([5] * 192)[0].prompt_token_ids) == 192  # nothing has to be left for an answer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda llm: llm.generate("x"), "BertModel does not generate text here; it is for: embed"),
        (lambda llm: llm.chat([{"role": "user", "content": "x"}]), "BertModel is for embed alone"),
        (lambda llm: llm.classify("x"), "does not classify here; it is for: embed"),
        (lambda llm: llm.embed("x", dimensions=0), "dimensions is a whole number from 1 on"),
        (lambda llm: llm.embed("x", truncate=0), "truncate is True or a whole number"),
        (lambda llm: llm.embed("x", normalize="yes"), "normalize is True, False or None"),
        (lambda llm: llm.embed("x", truncate=1), "cannot be cut to 1 tokens|the prompt"),
        (lambda llm: llm.embed({"prompt_token_ids": [5], "text_pair": "y"}), "a text that is paired or cut has"),
        (lambda llm: llm.embed(""), "the prompt is empty"),
        (lambda llm: llm.embed("", truncate=True), "the prompt is empty"),
        (lambda llm: llm.embed({"prompt_token_ids": []}, truncate=True), "the prompt is empty"),
        (lambda llm: llm.embed({"prompt_token_ids": []}), "the prompt is empty"),
        (lambda llm: llm.embed([999_999]), "ids go from 0 to"),
        (lambda llm: llm.score("x", [["y"]]), "query is a text, and so is each document"),
    ],
)
def test_what_a_model_that_pools_does_not_do_is_refused(bert: LLM, call: Callable[[LLM], Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        call(bert)


def test_of_a_model_that_embeds_the_score_is_the_cosine(bert: LLM) -> None:
    query, *documents = (o.embedding for o in bert.embed(TEXTS))
    scores = bert.score(TEXTS[0], TEXTS[1:])
    assert [s.score for s in scores] == pytest.approx([float(query @ d) for d in documents], abs=1e-6)
    failed = bert.score("fox " * 400, ["x"], on_error="return")[0]
    assert isinstance(failed.error, ContextLengthError)
    assert np.isnan(failed.score)


def test_a_cross_encoder_reads_query_and_document_together(reranker: LLM) -> None:
    folder = Path(reranker.engine.checkpoint.folder)
    tokenizer, model = reranker.get_tokenizer(), load_hf(folder)
    for text, output in zip(TEXTS, reranker.score("a red fox", TEXTS)):
        pair = tokenizer("a red fox", text, return_tensors="pt")
        assert 1 in pair["token_type_ids"]
        with torch.inference_mode():
            expected = model(**pair).logits[0].sigmoid()
        assert output.score == pytest.approx(float(expected), abs=1e-6)
        assert output.prompt_token_ids == pair["input_ids"][0].tolist()
        assert reranker.score("a red fox", text)[0].score == pytest.approx(output.score, abs=1e-6)
    with pytest.raises(InvalidRequestError, match="does not make embeddings here; it is for: classify, score"):
        reranker.embed("x")
    cut = reranker.score("fox " * 10, ["dog " * 400], truncate=30)[0]
    assert len(cut.prompt_token_ids) == 30


@pytest.mark.parametrize(
    ("problem", "activation"),
    [
        ("single_label_classification", lambda x: x.softmax(-1)),
        ("multi_label_classification", torch.sigmoid),
        ("regression", lambda x: x),
    ],
)
def test_a_classifier_gives_probabilities_of_its_classes(
    tmp_path: Path, problem: str, activation: Callable[[Tensor], Tensor]
) -> None:
    from transformers import BertForSequenceClassification

    from sdk.testing.tiny import save_tiny

    words = tiny.tokenizer()
    labels = {0: "good", 1: "bad", 2: "ugly"}
    config = tiny.config(len(words), id2label=labels, problem_type=problem)
    save_tiny(BertForSequenceClassification(config), tmp_path, seed=3, tokenizer=words)
    with torch.inference_mode():
        logits = load_hf(tmp_path)(**words(TEXTS[1], return_tensors="pt")).logits[0]
    with LLM(str(tmp_path), **EXACT) as llm:
        output = llm.classify(TEXTS[1])[0]
        assert output.labels == list(labels.values())
        assert_close(torch.from_numpy(output.probs), activation(logits))
        assert output.label == labels[int(logits.argmax())]
        with pytest.raises(InvalidRequestError, match="does not score pairs of texts here; it is for: classify"):
            llm.score("x", "y")


def test_a_model_that_generates_embeds_by_its_last_state(llama_folder: Path) -> None:
    with LLM(str(llama_folder), **EXACT, task="embed", max_num_batched_tokens=32) as llm:
        for text, output in zip(TEXTS, llm.embed(TEXTS)):
            assert_close(torch.from_numpy(output.embedding), unit(states(llama_folder, text)[-1]))
        assert_idle(llm)
        with pytest.raises(InvalidRequestError, match="does not generate text here; it is for: embed"):
            llm.generate("x")


def test_pictures_are_seen_by_a_vector_too(llava_folder: Path) -> None:
    from transformers import AutoProcessor

    prompt = {"prompt": "USER: <image>\nWhat is shown? ASSISTANT:", "multi_modal_data": {"image": picture(3)}}
    inputs = AutoProcessor.from_pretrained(llava_folder, backend="pil")(
        text=prompt["prompt"], images=picture(3), return_tensors="pt"
    )
    with torch.inference_mode():
        hidden = load_hf(llava_folder)(**inputs, output_hidden_states=True).hidden_states[-1][0]
    with LLM(str(llava_folder), **EXACT, task="embed") as llm:
        text, seen = llm.embed(["USER: What is shown? ASSISTANT:", prompt])
        assert_close(torch.from_numpy(seen.embedding), unit(hidden[-1]))
        assert np.abs(text.embedding - seen.embedding).max() > 0.01
        with pytest.raises(InvalidRequestError, match="a text that is paired or cut"):
            llm.embed(prompt, truncate=True)


def test_a_model_that_generates_says_how_to_have_vectors_of_it(llama: LLM, llama_folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"it is for: generate; load it with task='embed'"):
        llama.embed("x")
    with pytest.raises(InvalidConfigError, match="does not classify; task can be: embed, generate"):
        LLM(str(llama_folder), task="classify")


@pytest.mark.parametrize("kind", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_every_way_to_pool_of_sentence_transformers(kind: str) -> None:
    rows, lengths = torch.randn(30, 8), [1, 12, 17]
    formulas: dict[str, Callable[[Tensor], Tensor]] = {
        "cls": lambda x: x[0],
        "max": lambda x: x.max(0).values,
        "mean": lambda x: x.mean(0),
        "mean_sqrt_len_tokens": lambda x: x.sum(0) / len(x) ** 0.5,
        "weightedmean": lambda x: (x * torch.arange(1, len(x) + 1)[:, None]).sum(0) / sum(range(1, len(x) + 1)),
        "lasttoken": lambda x: x[-1],
    }
    from sdk.sentence_folder import _KINDS

    made = Pooler([_KINDS[kind]])(rows, torch.tensor(lengths))
    assert_close(made, torch.stack([formulas[kind](part) for part in rows.split(lengths)]))
    both = Pooler([_KINDS[kind], "cls"])(rows, torch.tensor(lengths))
    assert_close(both[:, :8], made)


@pytest.mark.parametrize(
    ("changed", "width", "length"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, 64, 1.0),
        ({"pooling_mode_cls_token": True}, 128, 1.0),
        ({"pooling_mode": "lasttoken"}, 64, 1.0),
    ],
)
def test_a_folder_says_how_it_pools(
    folder: Path, tmp_path: Path, changed: dict[str, Any], width: int, length: float
) -> None:
    copy = copied(folder, tmp_path)
    path = copy / "1_Pooling" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with LLM(str(copy), **EXACT) as llm:
        vector = llm.embed("a fox")[0].embedding
    assert vector.shape == (width,)
    assert np.linalg.norm(vector) == pytest.approx(length, abs=1e-6)


def test_without_modules_the_plugins_own_way_counts(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path)
    (copy / "modules.json").unlink()
    with LLM(str(copy), **EXACT) as llm:
        assert_close(torch.from_numpy(llm.embed(TEXTS[1])[0].embedding), states(folder, TEXTS[1]).mean(0))
        assert llm.plan.max_model_len == 256


@pytest.mark.parametrize(
    ("file", "contents", "message"),
    [
        (
            "modules.json",
            [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}],
            "asks for a Dense module",
        ),
        ("modules.json", [{"type": "sentence_transformers.models.Transformer"}], "names no Pooling module"),
        ("1_Pooling/config.json", {"pooling_mode": "best"}, "pools by best; known: cls"),
        ("1_Pooling/config.json", {}, "pools by nothing"),
    ],
)
def test_a_folder_that_asks_for_more_is_refused(
    folder: Path, tmp_path: Path, file: str, contents: Any, message: str
) -> None:
    copy = copied(folder, tmp_path)
    (copy / file).write_text(json.dumps(contents))
    with pytest.raises(InvalidConfigError, match=message):
        LLM(str(copy), **EXACT)


def copied(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to / "copy"))


def test_what_is_aborted_says_so(folder: Path) -> None:
    with LLM(str(folder), **EXACT) as llm:
        step = llm.engine.step

        def aborted() -> Any:
            llm.abort(list(llm.runner.jobs))
            return step()

        llm.engine.step = aborted  # type: ignore[method-assign]
        (output,) = llm.embed("a fox", on_error="return")
        (score,) = llm.score("a fox", "a dog", on_error="return")
        assert isinstance(output.error, RequestAborted)
        assert isinstance(score.error, RequestAborted)
        assert_idle(llm)


def test_numbers_that_are_none_end_their_own_request(folder: Path) -> None:
    with LLM(str(folder), **EXACT) as llm:
        (table, _) = (m for m in llm.engine.model.modules() if isinstance(m, VocabParallelEmbedding))
        table.weight.data[77] = float("nan")
        fine, broken, also_fine = llm.embed([[5, 6], [5, 77], [8]], on_error="return")
        assert isinstance(broken.error, NumericalError)
        assert np.isfinite(np.concatenate((fine.embedding, also_fine.embedding))).all()
        assert_idle(llm)


def test_a_model_that_is_said_to_pool_must_implement_it(llama_folder: Path) -> None:
    from sdk import Capabilities

    model = "engine_plugin_llama.model:LlamaForCausalLM"
    registry.register("LlamaForCausalLM", model, capabilities=Capabilities(tasks=("embed",)), replace=True)
    try:
        with pytest.raises(PluginContractError, match="its model must implement SupportsPooling"):
            LLM(str(llama_folder))
    finally:
        registry.unregister("LlamaForCausalLM")


@pytest.mark.parametrize("hook", ["embed"])
def test_a_hook_that_returns_something_else_is_named(bert: LLM, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    from core.pooling.head import PoolingHead

    head = PoolingHead(bert.engine.model, bert.engine.capabilities, "a-plugin 1", torch.device("cpu"))
    monkeypatch.setattr(type(bert.engine.model), hook, lambda self, hidden, lengths: hidden)
    with pytest.raises(PluginContractError, match=r"\[a-plugin 1\] embed: expected \(2, width\), got \(5, 64\)"):
        head._made("embed", torch.zeros(5, 64), torch.tensor([2, 3]))


@pytest.mark.asyncio
async def test_async_llm_does_the_same(folder: Path, bert: LLM) -> None:
    expected = [o.embedding for o in bert.embed(TEXTS)]
    async with await AsyncLLM.create(str(folder), **EXACT, max_queued_requests=2) as llm:
        made = await llm.embed(TEXTS * 3)
        assert max(abs(o.embedding - e).max() for o, e in zip(made, expected * 3)) < 1e-6
        scores = await llm.score(TEXTS[0], TEXTS[1:])
        assert [s.score for s in scores] == pytest.approx([float(expected[0] @ e) for e in expected[1:]], abs=1e-6)
        with pytest.raises(InvalidRequestError, match="does not classify here"):
            await llm.classify("x")
        with pytest.raises(InvalidRequestError, match="does not generate text here"):
            async for _ in llm.generate("x"):
                pass
        outputs = [output async for output in llm.encode("a", PoolingParams("embed", dimensions=3))]
        assert [len(output.pooled) for output in outputs] == [3]
        with pytest.raises(RequestTimeoutError, match=r"the request's 0.01 s were over before all of its 500 prompts"):
            await llm.embed(TEXTS * 125, timeout=0.01)
        wrong, fine = await llm.embed(["fox " * 400, "a"], on_error="return")
        assert isinstance(wrong.error, ContextLengthError)
        assert fine.error is None

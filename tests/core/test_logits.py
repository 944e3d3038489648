"""What shapes the logits, each against a plain reference, and against transformers' own where it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core import LLM, SamplingParams
from core.errors import InvalidRequestError
from core.logits.bad_words import BadWords, sequences_of
from core.logits.rules import LogitsRules, LogitsState
from core.logits.shape import shape
from core.request import Request
from core.sampler import sample

from .conftest import Hf, prompt_ids, tokens

VOCAB = 40
END = 2


def state(params: SamplingParams, prompt: Sequence[int], words: Sequence[Sequence[int]] = ()) -> LogitsState:
    """What an engine would make of parameters, for a vocabulary without a tokenizer."""
    bias = params.logit_bias or {}
    allowed = params.allowed_token_ids
    rules = LogitsRules(
        params=params,
        vocab_size=VOCAB,
        biased=np.array(list(bias), dtype=np.int64),
        bias=np.array(list(bias.values()), dtype=np.float32),
        allowed=None if allowed is None else np.array(sorted(set(allowed)), dtype=np.int64),
        bad_words=BadWords(words) if words else None,
        ends=np.array(sorted({END, *params.stop_token_ids}), dtype=np.int64),
        grammar=None,
    )
    return LogitsState(rules, prompt)


def request(
    params: SamplingParams,
    prompt: Sequence[int],
    output: Sequence[int],
    words: Sequence[Sequence[int]] = (),
    seed: int = 0,
) -> Request:
    return Request(
        request_id="r",
        token_ids=[*prompt, *output],
        prompt_len=len(prompt),
        params=params,
        max_tokens=100,
        eos_token_ids=frozenset([END]),
        seed=seed,
        logits=state(params, prompt, words) if params.shapes_logits else None,
    )  # fmt: skip


def shaped(logits: Tensor, made: Request) -> Tensor:
    out = logits[None].clone()
    shape(out, [0], [made])
    return out[0]


def reference(logits: Tensor, made: Request, words: Sequence[Sequence[int]]) -> Tensor:
    """What the parameters are documented to do, one token at a time."""
    p, prompt, output = made.params, made.token_ids[: made.prompt_len], made.output_token_ids
    out = logits.tolist()
    for token in range(VOCAB):
        x = np.float32(out[token])
        x += np.float32((p.logit_bias or {}).get(token, 0.0))
        if token in prompt or token in output:
            penalty = np.float32(p.repetition_penalty)
            x = x / penalty if x > 0 else x * penalty
        x -= np.float32(p.frequency_penalty) * np.float32(output.count(token))
        x -= np.float32(p.presence_penalty) * np.float32(token in output)
        if p.allowed_token_ids is not None and token not in p.allowed_token_ids:
            x = -np.inf
        if len(output) < p.min_tokens and token in (END, *p.stop_token_ids):
            x = -np.inf
        for *before, last in words:
            if token == last and len(before) <= len(output) and output[len(output) - len(before) :] == before:
                x = -np.inf
        out[token] = x
    return torch.tensor(np.array(out, dtype=np.float32))


TOKENS = st.integers(0, VOCAB - 1)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    min_tokens=st.integers(0, 4),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3]),
    presence_penalty=st.sampled_from([0.0, 1.5, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.25, -2.0]),
    logit_bias=st.none() | st.dictionaries(TOKENS, st.sampled_from([-100.0, 3.0, 100.0]), max_size=5),
    allowed_token_ids=st.none() | st.lists(TOKENS, min_size=4, max_size=30),
    stop_token_ids=st.lists(TOKENS, max_size=3),
    min_p=st.sampled_from([0.0, 0.2, 1.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.6]),
    logprobs=st.sampled_from([None, 0, 3]),
)
WORDS = st.lists(st.lists(st.integers(5, 9), min_size=1, max_size=3), max_size=3)
SEQUENCE = st.lists(st.integers(0, 12), max_size=12)


@settings(max_examples=200, deadline=None)
@given(params=PARAMS, prompt=SEQUENCE, output=SEQUENCE, words=WORDS, seed=st.integers(0, 5))
def test_logits_are_shaped_as_documented(
    params: SamplingParams, prompt: list[int], output: list[int], words: list[list[int]], seed: int
) -> None:
    params = SamplingParams(**{**vars_of(params), "bad_words": ["x"] if words else []})
    if not params.shapes_logits:
        return
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    made = request(params, prompt, output, words)
    expected = reference(logits, made, words)
    torch.testing.assert_close(shaped(logits, made), expected, rtol=1e-6, atol=1e-6)
    made.logits = state(params, prompt, words)  # made anew, as after a loss: it is all in the token ids
    assert torch.equal(shaped(logits, made), shaped(logits, made))


def vars_of(params: SamplingParams) -> dict[str, Any]:
    return {
        f: getattr(params, f)
        for f in SamplingParams.__dataclass_fields__
        if SamplingParams.__dataclass_fields__[f].init
    }


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_R016_a_row_depends_on_its_own_request_alone(data: st.DataObject) -> None:
    def one() -> Request:
        params, words = data.draw(PARAMS), data.draw(WORDS)
        params = SamplingParams(**{**vars_of(params), "bad_words": ["x"] if words else []})
        return request(
            params, data.draw(SEQUENCE), data.draw(SEQUENCE), words, seed=data.draw(st.integers(0, 2**64 - 1))
        )

    requests = [one() for _ in range(data.draw(st.integers(1, 6)))]
    logits = torch.randn(len(requests), VOCAB, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 9))))
    together = sample(logits.clone(), requests)
    for i, made in enumerate(requests):
        alone = sample(logits[i : i + 1].clone(), [made])
        assert (0 in alone.failed) == (i in together.failed)
        if 0 not in alone.failed:
            assert alone.tokens[0] == together.tokens[i]
            assert alone.logprobs.get(0) == together.logprobs.get(i)


# ---- transformers' own ----------------------------------------------------------------------------------------------

PROMPT, OUTPUT = [5, 6, 7, 7], [8, 5, 9, 9, 9]
LOGITS = torch.randn(VOCAB, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize(
    ("params", "theirs"),
    [
        ({"repetition_penalty": 1.3}, lambda n: RepetitionPenaltyLogitsProcessor(1.3)),
        ({"repetition_penalty": 0.4}, lambda n: RepetitionPenaltyLogitsProcessor(0.4)),
        ({"min_tokens": 6}, lambda n: MinNewTokensLengthLogitsProcessor(n, 6, END)),
        ({"min_tokens": 5}, lambda n: MinNewTokensLengthLogitsProcessor(n, 5, END)),
        ({"logit_bias": {3: 2.5, 8: -4.0}}, lambda n: SequenceBiasLogitsProcessor({(3,): 2.5, (8,): -4.0})),
    ],
)
def test_as_transformers_processors_do(params: dict[str, Any], theirs: Callable[[int], Any]) -> None:
    ids = torch.tensor([PROMPT + OUTPUT])
    expected = theirs(len(PROMPT))(ids, LOGITS[None].clone())[0]
    torch.testing.assert_close(shaped(LOGITS, request(SamplingParams(**params), PROMPT, OUTPUT)), expected)


@pytest.mark.parametrize("words", [[[9]], [[9, 3], [5]], [[9, 9, 4], [8, 9, 4]], [[5, 9, 9, 9, 1]]])
def test_bad_words_as_transformers_does_within_the_output(words: list[list[int]]) -> None:
    theirs = NoBadWordsLogitsProcessor(words)
    made = request(SamplingParams(bad_words=["x"]), PROMPT, OUTPUT, words)
    expected = theirs(torch.tensor([OUTPUT]), LOGITS[None].clone())[0]
    assert torch.equal(shaped(LOGITS, made), expected)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.1), (0, 0.8, 0.05), (7, 0.9, 0.2), (3, 1.0, 1.0)])
def test_draws_as_transformers_warpers_do(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    warpers += [TopPLogitsWarper(top_p), MinPLogitsWarper(min_p)]
    expected = warpers(torch.tensor([[0]]), LOGITS[None].clone())[0].softmax(-1).numpy()
    draws = 6000
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    rows = [request(params, [1], [], seed=i * 0x9E3779B97F4A7C15 % 2**64) for i in range(draws)]
    found = np.bincount(sample(LOGITS.expand(draws, -1), rows).tokens, minlength=VOCAB) / draws
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(expected))
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-12).all()


@pytest.mark.parametrize("feature", ["repetition_penalty", "bad_words", "logit_bias", "min_tokens"])
def test_greedy_generation_as_in_transformers(llama: LLM, llama_folder: Any, hf: Hf, feature: str) -> None:
    tokenizer, prompt = llama.get_tokenizer(), prompt_ids(3, 11)
    free = tokens(llama, [prompt], SamplingParams(temperature=0, max_tokens=32, ignore_eos=True))[0]
    words = [
        tokenizer.decode([t])
        for t in free
        if tokenizer(tokenizer.decode([t]), add_special_tokens=False)["input_ids"] == [t]
    ]
    assert len(words) > 2
    ours, theirs = {
        "repetition_penalty": ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
        "bad_words": (
            {"bad_words": words[:3]},
            {"bad_words_ids": [list(s) for s in sequences_of(words[:3], tokenizer)]},
        ),
        "logit_bias": ({"logit_bias": {70: 4.0}}, {"sequence_bias": [[[70], 4.0]]}),
        "min_tokens": (
            {"min_tokens": 9, "stop_token_ids": [free[3]]},
            {"min_new_tokens": 9, "eos_token_id": free[3]},
        ),
    }[feature]
    model, ids = hf(llama_folder), torch.tensor([prompt])
    expected = model.generate(
        ids, max_new_tokens=32, do_sample=False, pad_token_id=3, **{"eos_token_id": None, **theirs}
    )
    params = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True, **ours)
    assert tokens(llama, [prompt], params)[0] == expected[0, len(prompt) :].tolist() != free


# ---- through the engine ---------------------------------------------------------------------------------------------


def test_bad_words_have_the_forms_that_texts_have_them_in(llama: LLM) -> None:
    tokenizer = llama.get_tokenizer()
    found = sequences_of(["dog"], tokenizer)
    for text in ("dog", " dog"):
        assert tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) in found


def test_allowed_token_ids_are_all_that_comes(llama: LLM) -> None:
    allowed = [50, 60, 70]
    params = SamplingParams(temperature=1.0, seed=1, allowed_token_ids=allowed, max_tokens=40, ignore_eos=True)
    assert set(tokens(llama, ["hello"], params)[0]) == set(allowed)


def test_no_end_comes_before_min_tokens(llama: LLM) -> None:
    free = tokens(llama, ["hello"], SamplingParams(temperature=0, max_tokens=24, ignore_eos=True))[0]
    stop = free[2]
    at_once = tokens(llama, ["hello"], SamplingParams(temperature=0, max_tokens=24, stop_token_ids=[stop]))[0]
    assert len(at_once) <= 3
    params = SamplingParams(
        temperature=0, max_tokens=24, min_tokens=8, stop_token_ids=[stop], logit_bias={2: 100.0}
    )  # the end token is always the likeliest
    late = llama.generate("hello", params)[0].outputs[0]
    assert len(late.token_ids) == 9
    assert not {2, stop} & set(late.token_ids[:8])
    assert (late.token_ids[-1], late.finish_reason) == (2, "stop")


def test_no_stop_string_counts_before_min_tokens(llama: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    ids = list(llama.generate("hello", params)[0].outputs[0].token_ids)
    stop = llama.get_tokenizer().decode(ids[1:2])
    early = llama.generate("hello", SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop=stop))[0]
    assert len(early.outputs[0].token_ids) == 2
    late = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop=stop, min_tokens=5)
    assert len(llama.generate("hello", late)[0].outputs[0].token_ids) >= 5


def test_without_detokenizing_there_are_tokens_and_no_text(llama: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    silent = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, detokenize=False)
    output = llama.generate("hello", silent)[0].outputs[0]
    assert output.text == ""
    assert list(output.token_ids) == tokens(llama, ["hello"], params)[0]
    streamed = [t for o in llama.generate("hello", silent, stream=True) for t in o.outputs[0].token_ids]
    assert streamed == list(output.token_ids)


def test_logprobs_are_the_models_own_whatever_shapes_the_draw(llama: LLM) -> None:
    plain = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    bent = SamplingParams(
        temperature=0, max_tokens=1, logprobs=5, logit_bias={70: 100.0}, repetition_penalty=2.0, bad_words=["a"]
    )
    a, b = (llama.generate("hello there", p)[0].outputs[0] for p in (plain, bent))
    assert list(b.token_ids) == [70]
    best = sorted(a.logprobs[0].items())
    assert [(t, p) for t, p in sorted(b.logprobs[0].items()) if t in a.logprobs[0]] == best
    assert b.logprobs[0][70].rank > 5


# ---- functions that the caller brings -------------------------------------------------------------------------------


def even_ids_only(output: list[int], logits: Tensor) -> Tensor:
    logits[1::2] = -torch.inf
    return logits


def test_a_function_sees_the_output_and_changes_the_row(llama: LLM) -> None:
    seen: list[list[int]] = []

    def look(output: list[int], logits: Tensor) -> Tensor:
        seen.append(output)
        assert logits.dtype == torch.float32
        assert logits.shape == (llama.engine.inputs.vocab_size,)
        return logits

    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logits_processors=[even_ids_only, look])
    found = tokens(llama, ["hello"], params)[0]
    assert all(t % 2 == 0 for t in found)
    assert seen == [found[:n] for n in range(6)]


def fails_late(output: list[int], logits: Tensor) -> Tensor:
    if len(output) == 3:
        raise KeyError("no such thing")
    return logits


@pytest.mark.parametrize(
    ("processor", "what"),
    [
        (fails_late, "KeyError"),
        (lambda output, logits: logits[:-1], "must return logits"),
        (lambda output, logits: None, "must return logits"),
        (lambda output, logits: logits.long(), "must return logits"),
        (lambda output, logits: logits * float("nan"), "NaN"),
        (lambda output, logits: logits.index_fill(0, torch.tensor([3]), float("inf")), "infinity"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_R078_a_function_that_fails_ends_its_own_request_alone(
    llama: LLM, processor: Any, what: str, temperature: float
) -> None:
    well = SamplingParams(temperature=temperature, seed=5, max_tokens=12, ignore_eos=True)
    ill = SamplingParams(temperature=temperature, seed=5, max_tokens=12, ignore_eos=True, logits_processors=[processor])
    prompts = [prompt_ids(i, 6) for i in range(3)]
    expected = tokens(llama, prompts, well)
    found = llama.generate(prompts, [well, ill, well], on_error="return")
    assert [list(found[i].outputs[0].token_ids) for i in (0, 2)] == [expected[0], expected[2]]
    assert isinstance(found[1].error, InvalidRequestError)
    assert found[1].error.code == "logits_processor_error"
    assert what in str(found[1].error)
    assert found[1].outputs[0].finish_reason == "error"


def test_R024_where_no_token_is_left_the_request_ends_and_no_other(llama: LLM) -> None:
    good = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    none = SamplingParams(max_tokens=8, allowed_token_ids=[2], min_tokens=3)
    expected = tokens(llama, ["hello"], good)[0]
    found = llama.generate(["hello", "hello"], [none, good], on_error="return")
    assert found[0].error is not None
    assert found[0].error.code == "no_token_left"
    assert list(found[1].outputs[0].token_ids) == expected

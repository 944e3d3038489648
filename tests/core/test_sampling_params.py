"""What `SamplingParams` takes, and what it refuses before anything is scheduled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from core import LLM, SamplingParams, StructuredOutputs
from core.errors import GrammarError, InvalidRequestError

HUGE = 10**6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0), ("n", -1), ("n", 10**9), ("n", None), ("n", True), ("n", 1.5),
        ("max_tokens", 0), ("max_tokens", -1), ("min_tokens", -1), ("min_tokens", None), ("min_tokens", 17),
        ("temperature", -1), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", "1"),
        ("top_p", 0), ("top_p", 1.1), ("top_k", -2), ("min_p", -0.1), ("min_p", 1.01),
        ("repetition_penalty", 0), ("repetition_penalty", -1), ("repetition_penalty", float("inf")),
        ("presence_penalty", 2.1), ("frequency_penalty", -2.1), ("frequency_penalty", float("nan")),
        ("logprobs", -1), ("logprobs", 21), ("prompt_logprobs", -1), ("prompt_logprobs", 21),
        ("prompt_logprobs", 32000), ("seed", 2**63), ("seed", -(2**63) - 1),
        ("logit_bias", {1: 101.0}), ("logit_bias", {1: float("nan")}), ("logit_bias", {-1: 1.0}),
        ("logit_bias", {"one": 1.0}), ("logit_bias", [1]), ("allowed_token_ids", []), ("allowed_token_ids", [-1]),
        ("allowed_token_ids", ["a"]), ("stop_token_ids", [-1]), ("stop_token_ids", [1.0]), ("bad_words", [""]),
        ("bad_words", [1]), ("bad_words", ["x" * 257]), ("stop", [""]), ("stop", ["x" * 257]), ("stop", list("abcde")),
        ("logits_processors", [1]), ("logits_processors", {1: 2}), ("ignore_eos", 1), ("detokenize", "no"),
        ("structured_outputs", "json"), ("structured_outputs", {"jason": {}}), ("structured_outputs", {}),
    ],
)  # fmt: skip
def test_R011_R013_R015_what_is_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param is not None
    assert caught.value.param.startswith(f"sampling_params.{name}")


class Unread:
    """A million entries, which nobody looks at."""

    def __len__(self) -> int:
        return HUGE

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("an entry was looked at")

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("the entries were looked at")


class UnreadList(Unread, Sequence[Any]):
    pass


class UnreadMapping(Unread, Mapping[Any, Any]):
    pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, UnreadList()) for name in ("stop", "stop_token_ids", "bad_words", "allowed_token_ids", "logits_processors")),
        ("logit_bias", UnreadMapping()),
    ],
)  # fmt: skip
def test_R011_a_million_entries_are_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="at most"):
        SamplingParams(**{name: value})


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"stop": "a", "detokenize": False}, "detokenize"),
        ({"ignore_eos": True, "structured_outputs": {"choice": ["a"]}}, "ignore_eos"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ],
)
def test_what_contradicts_each_other_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidRequestError, match=what):
        SamplingParams(**given)


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids", "logit_bias"])
def test_R014_tokens_that_the_model_has_not_are_refused(llama: LLM, name: str) -> None:
    size = llama.engine.inputs.vocab_size
    value: Any = {size: 1.0} if name == "logit_bias" else [size]
    with pytest.raises(InvalidRequestError, match=str(size)) as caught:
        llama.generate("hello", SamplingParams(**{name: value}))
    assert caught.value.code == "invalid_token"


def test_ids_of_a_bias_may_be_strings_as_json_has_them() -> None:
    assert SamplingParams(logit_bias={"7": 1}).logit_bias == {7: 1.0}


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(InvalidRequestError, match="min_tokens"):
        SamplingParams.from_mapping({"min_token": 1})
    with pytest.raises(InvalidRequestError, match="known:"):
        SamplingParams.from_mapping({"plain": True})


def test_parameters_are_plain_only_when_greedy_and_nothing_else() -> None:
    assert SamplingParams(temperature=0).plain
    assert SamplingParams(temperature=0, stop="x", stop_token_ids=[1], ignore_eos=True).plain
    for extra in ({"logprobs": 0}, {"min_tokens": 1}, {"bad_words": ["a"]}, {"presence_penalty": 0.1}):
        assert not SamplingParams(temperature=0, **extra).plain


@pytest.mark.parametrize(
    "given",
    [
        {"regex": "a", "choice": ["b"]},
        {"choice": []},
        {"choice": "yes"},
        {"choice": [""]},
        {"choice": ["x"] * 1025},
        {"regex": ""},
        {"regex": 1},
        {"grammar": "start: \ud800"},
        {"json": "{"},
        {"json": "[" * 100_000},
        {"json": [1]},
        {"json": {"const": object()}},
    ],
)
def test_R021_what_is_no_grammar_is_refused_at_once(given: dict[str, Any]) -> None:
    with pytest.raises(GrammarError) as caught:
        StructuredOutputs(**given)
    assert caught.value.code == "invalid_grammar"


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def test_R022_size_and_depth_are_bounded_before_anything_is_compiled() -> None:
    endless: dict[str, Any] = {}
    endless["items"] = endless
    doubling: dict[str, Any] = {}
    for _ in range(60):
        doubling = {"a": doubling, "b": doubling}
    for schema in (deep(64), deep(100_000), endless, doubling, {"enum": ["x" * 70_000]}):
        with pytest.raises(GrammarError, match=r"deep|bytes"):
            StructuredOutputs(json=schema)
    StructuredOutputs(json=deep(62))
    for text in ("(" * 65 + ")" * 65, "x" * 70_000):
        with pytest.raises(GrammarError, match=r"deep|bytes"):
            StructuredOutputs(regex=text)
    StructuredOutputs(regex=r"\(" * 100)

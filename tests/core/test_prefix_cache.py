"""Pages shared by equal beginnings: a hit changes nothing but the work, and what differs is never shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import LLM, SamplingParams
from core.cache.pages import PagePool
from core.cache.prefix import page_keys
from core.errors import InvalidRequestError
from core.request import Request
from sdk.multimodal import PlaceholderRange, ProcessedItem

from .conftest import GREEDY, SHORT, Faulty, assert_idle, picture, prompt_ids, tokens, with_pictures

PREFIX = prompt_ids(1, 70)


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    for name in ("llama", "llava"):
        if name in request.fixturenames:
            request.getfixturevalue(name).engine.reset_caches()


@pytest.fixture(scope="module")
def without(llama_folder: Path) -> Iterator[LLM]:
    with LLM(str(llama_folder), dtype="float32", block_size=16, enable_prefix_caching=False) as llm:
        yield llm


def computed_tokens(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Token counts of the steps to come."""
    counts: list[int] = []
    run = llm.engine.runner.run

    def counted(plan: Any, **kwargs: Any) -> Any:
        counts.append(sum(s.count for s in plan))
        return run(plan, **kwargs)

    monkeypatch.setattr(llm.engine.runner, "run", counted)
    return counts


def test_R082_a_hit_gives_the_tokens_and_logprobs_of_a_miss(llama: LLM, without: LLM) -> None:
    prompts = [PREFIX + prompt_ids(s, n) for s, n in ((2, 5), (3, 30), (4, 1))]
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, logprobs=3)
    first = llama.generate(prompts[0], params)[0]
    assert first.num_cached_tokens == 0
    for prompt, expected in zip(prompts, without.generate(prompts, params)):
        found = llama.generate(prompt, params)[0]
        assert found.num_cached_tokens == 64
        assert expected.num_cached_tokens == 0
        assert found.outputs[0].token_ids == expected.outputs[0].token_ids
        for a, b in zip(found.outputs[0].logprobs, expected.outputs[0].logprobs):
            assert a.keys() == b.keys()
            assert all(abs(a[t].logprob - b[t].logprob) < 1e-4 for t in a)


def test_the_last_token_is_always_computed(llama: LLM) -> None:
    """A prompt of whole pages that are all at hand still needs somebody to say what comes next."""
    prompt = PREFIX[:64]
    expected = tokens(llama, prompt)
    assert llama.generate(prompt, GREEDY)[0].num_cached_tokens == 48
    assert tokens(llama, prompt) == expected


def test_output_tokens_are_found_by_the_next_turn_of_a_conversation(llama: LLM) -> None:
    first = llama.generate(PREFIX, GREEDY)[0]
    turn = PREFIX + list(first.outputs[0].token_ids) + [9, 9]
    assert llama.generate(turn, SHORT)[0].num_cached_tokens == 128  # the last output token was never computed


def test_requests_that_come_together_compute_their_common_beginning_once(
    llama: LLM, without: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [[*PREFIX, 40 + i] for i in range(6)]
    expected = tokens(without, prompts, SHORT)
    counts = computed_tokens(llama, monkeypatch)
    assert tokens(llama, prompts, SHORT) == expected
    assert counts[0] == 71
    assert counts[1] == 1 + 5 * 7


def test_n_sequences_of_a_prompt_compute_it_once(llama: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = computed_tokens(llama, monkeypatch)
    llama.generate(PREFIX, SamplingParams(n=4, max_tokens=2, seed=1, ignore_eos=True))
    assert sum(counts) == 70 + 3 * 6 + 4


def test_R082_salts_keep_prompts_apart(llama: LLM) -> None:
    def cached(**extra: Any) -> int:
        return llama.generate({"prompt_token_ids": PREFIX, **extra}, SHORT)[0].num_cached_tokens

    assert [cached(), cached(cache_salt="a"), cached(cache_salt="b"), cached(cache_salt="a")] == [0, 0, 0, 64]
    for bad in (7, "x" * 257):
        with pytest.raises(InvalidRequestError, match="cache_salt"):
            cached(cache_salt=bad)


def test_R032_two_pictures_behind_equal_ids_never_share_a_page(llava: LLM) -> None:
    alone = {}
    for seed in (1, 2):
        llava.engine.reset_caches()
        alone[seed] = tokens(llava, with_pictures("<image> what is it?", seed))
    llava.engine.reset_caches()
    for seed in (1, 2, 1, 2):
        out = llava.generate(with_pictures("<image> what is it?", seed), GREEDY)[0]
        assert [list(out.outputs[0].token_ids)] == alone[seed]
    assert alone[1] != alone[2]


def test_a_picture_seen_again_is_neither_processed_nor_encoded_again(
    llava: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokens(llava, with_pictures("<image> one", 3))
    encoded: list[int] = []
    embed = llava.engine.runner.encoder.call
    monkeypatch.setattr(llava.engine.runner.encoder, "call", lambda items: encoded.append(len(items)) or embed(items))
    processor = llava.engine.inputs.mm_processor
    assert processor is not None
    monkeypatch.setattr(processor, "_call_hf_processor", None)
    assert tokens(llava, with_pictures("<image> one", 3)) == expected
    assert tokens(llava, with_pictures("before the picture <image> two", 3))
    assert not encoded


def test_equal_pictures_of_one_step_are_encoded_once(llava: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    embed = llava.engine.runner.encoder.call
    monkeypatch.setattr(llava.engine.runner.encoder, "call", lambda items: encoded.append(len(items)) or embed(items))
    found = tokens(llava, [with_pictures(f"{i} <image>", 4) for i in range(5)])
    assert encoded == [1]
    monkeypatch.undo()
    llava.engine.reset_caches()
    assert found == [tokens(llava, with_pictures(f"{i} <image>", 4))[0] for i in range(5)]


def test_R032_what_looks_alike_has_another_key(llava: LLM) -> None:
    def key(image: Any, **extra: Any) -> bytes:
        prompt = {"prompt": "<image>", "multi_modal_data": {"image": image}, **extra}
        return llava.engine.inputs.process(prompt).prompt.items[0].key

    wide, high = picture(0, 40, 30), picture(0, 30, 40)
    assert wide.tobytes() == high.tobytes(), "the same bytes, of another shape"
    grey = np.asarray(wide.convert("L"))
    processed = llava.engine.inputs.process({"prompt": "<image>", "multi_modal_data": {"image": wide}})
    pixels = processed.prompt.items[0].kwargs["pixel_values"].value
    keys = [
        key(wide),
        key(high),
        key(grey),
        key(wide, cache_salt="a"),
        key(wide, mm_processor_kwargs={"do_normalize": False}),
        key({"pixel_values": pixels[None]}),
        key(torch.zeros(16, 64)),
        key(torch.zeros(16, 64, dtype=torch.float64)),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(k) == 32 for k in keys)
    assert key(wide.copy()) == keys[0]


def test_R070_what_a_processor_raised_on_is_not_remembered(faulty: Faulty) -> None:
    from engine_plugin_llava.processing import LlavaMultiModalProcessor

    class Once(LlavaMultiModalProcessor):
        calls = 0

        def _call_hf_processor(self, prompt: Any, mm_data: Any, mm_kwargs: Any, tok_kwargs: Any) -> Any:
            type(self).calls += 1
            if self.calls == 1:
                raise RuntimeError("the first time")
            return super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)

    with faulty("processor", Once) as llm:
        out = llm.generate([with_pictures("<image>", 1)] * 3, SHORT, on_error="return")
        assert [o.error is None for o in out] == [False, True, True]
        assert Once.calls == 2


def test_pages_in_use_are_not_evicted_and_old_contents_go_first(llama_folder: Path) -> None:
    """A pool that holds little more than one prompt: what is evicted is computed again, and nothing is wrong."""
    with LLM(str(llama_folder), dtype="float32", block_size=4, kv_cache_bytes=40 * 4 * 512, max_model_len=100) as llm:
        prompts = [prompt_ids(s, 60) for s in range(3)]
        expected = [tokens(llm, p, SHORT) for p in prompts]
        llm.engine.reset_caches()
        for _ in range(3):
            for p, e in zip(prompts, expected):
                assert tokens(llm, p, SHORT) == e
        both = [prompts[0], prompts[0] + [9], prompts[1]]
        assert tokens(llm, both, SHORT)[::2] == [expected[0][0], expected[1][0]]
        assert_idle(llm)


def test_prompt_embeds_give_what_their_tokens_give(llama: LLM, llava: LLM) -> None:
    for llm in (llama, llava):
        model = llm.engine.model
        with torch.inference_mode():
            embeds = model.get_input_embeddings(torch.tensor(PREFIX)).clone()
        expected = tokens(llm, PREFIX)
        out = llm.generate([{"prompt_embeds": embeds}, PREFIX, {"prompt_embeds": embeds}], GREEDY)
        assert [list(o.outputs[0].token_ids) for o in out] == expected * 3
        other = llm.generate({"prompt_embeds": embeds.flip(0)}, GREEDY)[0]
        assert other.num_cached_tokens == 0
        assert [list(other.outputs[0].token_ids)] == tokens(llm, PREFIX[::-1])


@pytest.mark.parametrize(
    "embeds",
    [
        [1.0],
        *(torch.zeros(shape) for shape in (3, (3, 5), (0, 64))),
        torch.ones(3, 64).long(),
        torch.full((3, 64), torch.nan),
    ],
)
def test_wrong_prompt_embeds_are_refused(llama: LLM, embeds: Any) -> None:
    with pytest.raises(InvalidRequestError, match="prompt_embeds"):
        llama.generate({"prompt_embeds": embeds}, SHORT)


def test_prompt_embeds_hold_the_whole_prompt(llava: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="whole prompt"):
        llava.generate({"prompt_embeds": torch.zeros(3, 64), "multi_modal_data": {"image": picture()}}, SHORT)


def request(ids: list[int], salt: bytes = b"", items: tuple[ProcessedItem, ...] = ()) -> Request:
    return Request("r", ids, len(ids), SamplingParams(), 1, frozenset(), 0, items, cache_salt=salt)


def item(key: bytes, offset: int, length: int) -> ProcessedItem:
    return ProcessedItem({}, PlaceholderRange("image", 0, offset, length, np.ones(length, dtype=np.bool_)), None, key)


def test_a_pages_key_says_everything_before_it() -> None:
    ids = list(range(12))
    plain = page_keys(request(ids), 4)
    assert len(plain) == len(set(plain)) == 3
    assert page_keys(request(ids[:11]), 4) == plain[:2]
    assert not set(page_keys(request([99, *ids[1:]]), 4)) & set(plain)
    assert not set(page_keys(request(ids, b"salt"), 4)) & set(plain)
    seen = page_keys(request(ids, items=(item(b"k", 5, 2),)), 4)
    assert seen[0] == plain[0]
    assert not set(seen[1:]) & set(plain)
    assert page_keys(request(ids, items=(item(b"k", 6, 2),)), 4)[1] != seen[1]
    assert page_keys(request(ids, items=(item(b"", 5, 2),)), 4) == plain[:1], "nobody vouches for what is in an item"


def test_pages_keep_their_contents_until_the_room_is_needed() -> None:
    pool = PagePool(4, 16)
    pages = pool.take(3)
    assert pages is not None
    for page, key in zip(pages, (b"a", b"b", b"c")):
        pool.publish(page, key)
    pool.release(reversed(pages))
    assert pool.num_free == 4
    assert pool.find([b"a", b"b", b"x", b"c"]) == pages[:2]
    pool.share(pages[:1])
    assert pool.num_free == 3
    assert pool.take(4) is None
    taken = pool.take(2)
    assert taken is not None
    assert pages[2] in taken, "the end of a beginning goes first"
    assert pool.find([b"a", b"b", b"c"]) == pages[:2]
    pool.forget()
    assert pool.find([b"a"]) == []
    pool.release([*taken, *pages[:1]])
    assert pool.num_free == 4

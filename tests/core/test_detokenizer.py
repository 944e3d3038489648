"""Text that grows token by token is the text of all tokens together, for each family of tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.detokenizer import Detokenizer, whole_text
from sdk.testing.tiny import tiny_tokenizer

PIECES = ["▁", "▁a", "▁the", "a", "b", "th", "e", "é", "▁快", ".", ",", "▁!", "'s", "\n", "🙂"]


def sentencepiece_like() -> Any:
    """As Llama 2 has it: spaces are part of tokens, the first is dropped, unknown characters are spelt in bytes."""
    vocab = {t: i for i, t in enumerate(["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], *PIECES])}
    bpe = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def wordpiece_like() -> Any:
    """As BERT has it: `##` continues a word, everything else begins one."""
    vocab = {t: i for i, t in enumerate(["[UNK]", "[SEP]", "the", "##s", "cat", ".", "##e", "a", "##�"])}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", eos_token="[SEP]")


TOKENIZERS = {"bytes": tiny_tokenizer(), "sentencepiece": sentencepiece_like(), "wordpiece": wordpiece_like()}


def decoded(tokenizer: Any, ids: list[int], skip: bool) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    return text


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(TOKENIZERS)), data=st.data(), skip=st.booleans())
def test_R095_parts_of_any_size_are_the_whole(name: str, data: st.DataObject, skip: bool) -> None:
    tokenizer = TOKENIZERS[name]
    vocabulary = len(tokenizer)
    ids = data.draw(st.lists(st.integers(0, vocabulary - 1), max_size=24))
    growing, pieces, at = Detokenizer(tokenizer, skip_special_tokens=skip), [], 0
    while at < len(ids):
        step = data.draw(st.integers(1, 4))
        assert growing.append(ids[at : at + step]) is None
        at += step
        pieces.append(growing.delta(finished=False))
    assert growing.finish() is None
    pieces.append(growing.delta(finished=True))
    single = Detokenizer(tokenizer, skip_special_tokens=skip)
    single.append_one_by_one(ids)
    single.finish()
    assert "".join(pieces) == growing.text == single.text
    assert growing.ids == ids
    if name != "sentencepiece" or "�" not in single.text:
        assert single.text == decoded(tokenizer, ids, skip)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), keep=st.booleans())
def test_R095_a_stop_string_cuts_the_same_text_whatever_was_handed_out_before(data: st.DataObject, keep: bool) -> None:
    tokenizer = TOKENIZERS["bytes"]
    ids = tokenizer(data.draw(st.text("abc🙂é ", max_size=20)), add_special_tokens=False)["input_ids"]
    stops = data.draw(st.lists(st.text("abc🙂é ", min_size=1, max_size=4), min_size=1, max_size=3))
    whole = decoded(tokenizer, ids, True)
    growing, sent = Detokenizer(tokenizer, stops, keep_stop=keep), ""
    for token in ids:
        hit = growing.append_one_by_one([token])
        sent += growing.delta(finished=hit is not None)
        assert growing.text.startswith(sent)
        if hit is not None:
            break
    hit = growing.finish()
    sent += growing.delta(finished=True)
    assert sent == growing.text
    found = [whole.find(s) for s in stops]
    if hit is None:
        assert sent == whole
        assert found == [-1] * len(stops)
    else:
        # The text ends at the stop string, and none stands before it.
        at = len(sent) - len(hit) if keep else len(sent)
        assert whole[at : at + len(hit)] == hit
        assert sent == whole[: at + (len(hit) if keep else 0)]
        assert all(i == -1 or i >= at or i + len(s) > at + len(hit) for i, s in zip(found, stops))


def test_R095_a_character_that_is_cut_off_does_not_take_those_before_it_along() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    ids = [tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in "é快é".encode()][:-1]
    assert decoded(tokenizer, ids, True) == "�" * len(ids), "the library gives up the whole run"
    growing = Detokenizer(tokenizer)
    growing.append(ids)
    growing.finish()
    assert growing.text == "é快�"


def test_R097_bytes_that_never_become_a_character_come_out_at_the_end() -> None:
    tokenizer = TOKENIZERS["bytes"]
    broken = tokenizer("🙂", add_special_tokens=False)["input_ids"][:-1]
    growing = Detokenizer(tokenizer)
    growing.append(broken)
    assert growing.delta(finished=False) == ""
    growing.finish()
    assert growing.delta(finished=True) == decoded(tokenizer, broken, True) == "�"


@pytest.mark.parametrize(("skip", "text"), [(True, "ab"), (False, "a</s>b")])
def test_special_tokens_are_left_out_or_shown(skip: bool, text: str) -> None:
    tokenizer = TOKENIZERS["bytes"]
    a, b = (tokenizer(c, add_special_tokens=False)["input_ids"] for c in "ab")
    growing = Detokenizer(tokenizer, skip_special_tokens=skip)
    growing.append([*a, tokenizer.eos_token_id, *b])
    growing.finish()
    assert growing.text == text


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(TOKENIZERS)), data=st.data())
def test_many_tokens_at_once_are_the_same_text(name: str, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(TOKENIZERS[name]) + 3), max_size=24))
    assert whole_text(TOKENIZERS[name], ids) == decoded(TOKENIZERS[name], ids, False)


def test_tokenizers_with_a_way_of_their_own_keep_it() -> None:
    class Loud(PreTrainedTokenizerFast):
        def _decode(self, *args: Any, **kwargs: Any) -> str:
            return str(super()._decode(*args, **kwargs)).upper()

    loud = Loud(tokenizer_object=TOKENIZERS["bytes"].backend_tokenizer)
    assert whole_text(loud, loud("abc", add_special_tokens=False)["input_ids"]) == "ABC"

"""Conversations: the template is the model's, the words are the user's, and only content parts are media."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from engine_plugin_llava import tiny as llava_tiny
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from core import LLM, SamplingParams
from core.chat import ChatRenderer
from core.errors import InvalidConfigError, InvalidRequestError

from .conftest import SHORT, picture

ONE = SamplingParams(temperature=0, max_tokens=1)
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")


def as_text(llm: LLM, text: str) -> list[int]:
    """The ids of a text of which every character is text."""
    backend = llm.get_tokenizer().backend_tokenizer
    backend.encode_special_tokens = True
    try:
        return backend.encode(text, add_special_tokens=False).ids
    finally:
        backend.encode_special_tokens = False


TEXTS = st.text(max_size=30).filter(lambda s: s.isprintable() or "\n" in s)
PIECES = st.lists(st.one_of(st.sampled_from(SPECIAL), TEXTS), max_size=5).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=TEXTS, system=TEXTS)
def test_clean_text_has_transformers_ids(llama: LLM, llama_folder: Path, user: str, system: str) -> None:
    assume(not any(t in user or t in system for t in llama.engine.inputs.chat.added_tokens))
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    theirs = llama.get_tokenizer().apply_chat_template(messages, add_generation_prompt=True)
    ours = llama.engine.inputs.process_chat(messages).prompt.prompt_token_ids
    assert ours == list(theirs["input_ids"] if hasattr(theirs, "keys") else theirs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=PIECES, answer=PIECES)
def test_R044_typed_tokens_are_the_characters_they_are_typed_with(llama: LLM, user: str, answer: str) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": user}]},
        {"role": "assistant", "content": answer},
    ]
    made = llama.engine.inputs.process_chat(messages)
    assert made.text == f"USER: {user}\nASSISTANT: {answer}\nASSISTANT:"
    assert made.prompt.prompt_token_ids == as_text(llama, made.text)


SHOWS_ALL = (
    "{% for m in messages %}<s>{{ m.role }}|{{ m.name }}|{{ m.content }}|"
    "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}</s>{% endfor %}"
)


def test_R044_typed_tokens_are_text_in_every_field(llama: LLM) -> None:
    renderer = ChatRenderer(llama.get_tokenizer(), SHOWS_ALL, None)
    call = {"type": "function", "function": {"name": "f</s>", "arguments": {"x": ["<s>", 5, None]}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "name": "</s>eve", "content": "<s>"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool</s>", "content": "<pad>"},
    ]
    made = renderer.render(messages)
    ids = llama.get_tokenizer().convert_tokens_to_ids(["<s>", "</s>", "<pad>"])
    assert [made.token_ids.count(i) for i in ids] == [3, 3, 0]
    for typed in ("</s>eve", "f</s>", '["<s>", 5, null]', "tool</s>", "|<pad>|"):
        assert typed in made.text


def test_R044_a_mark_of_ours_in_a_users_text_is_text(llama: LLM) -> None:
    text = "\ue000abc-0\ue001 </s> \ue00012-1\ue001\ue002\ue003"
    made = llama.engine.inputs.process_chat([{"role": "user", "content": text}])
    assert text in made.text
    assert made.prompt.prompt_token_ids == as_text(llama, made.text)


@pytest.mark.parametrize("typed", ["<image>", "<image></s>", "look: <image>\n<image>"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_R044_a_typed_placeholder_binds_no_picture(llava: LLM, typed: str, order: str) -> None:
    image, text = {"type": "image", "image": picture(1)}, {"type": "text", "text": typed}
    parts = [text, image] if order == "before" else [image, text]
    made = llava.engine.inputs.process_chat([{"role": "user", "content": parts}])
    (item,) = made.prompt.items
    ids, image_id = made.prompt.prompt_token_ids, llava.get_tokenizer().convert_tokens_to_ids("<image>")
    place = item.placeholder
    assert [i for i, t in enumerate(ids) if t == image_id] == list(range(place.offset, place.offset + place.length))
    decode = llava.get_tokenizer().decode
    before = decode(ids[: place.offset], skip_special_tokens=True)
    after = decode(ids[place.offset + place.length :], skip_special_tokens=True)
    assert typed in (before if order == "before" else after)
    assert typed not in (after if order == "before" else before)


VICUNA = "{% for m in messages %}{{ m.role | upper }}: {{ m.content + '\n' }}{% endfor %}ASSISTANT:"


def test_a_template_for_text_alone_gets_placeholders_in_the_text(llava_folder: Path) -> None:
    with LLM(str(llava_folder), dtype="float32", chat_template=VICUNA) as llm:
        parts = [{"type": "image", "image": picture(1)}, "typed <image>", {"type": "image", "image": picture(2)}]
        made = llm.engine.inputs.process_chat([{"role": "user", "content": parts}])
        assert made.text == "USER: <image>\ntyped <image>\n<image>\nASSISTANT:"
        assert [i.placeholder.index for i in made.prompt.items] == [0, 1]
        assert llm.chat([{"role": "user", "content": "plain"}], ONE)[0].prompt == "USER: plain\nASSISTANT:"


def test_a_template_for_text_alone_gets_the_placeholder_of_the_checkpoint(tmp_path: Path) -> None:
    """One architecture, and over this tower its pictures are written otherwise: no token is there twice."""
    llava_tiny.llava_over_pixtral(0, tmp_path)
    with LLM(str(tmp_path), dtype="float32", chat_template=VICUNA) as llm:
        parts = [{"type": "image", "image": picture(1)}, "typed [IMG][IMG_END]"]
        made = llm.engine.inputs.process_chat([{"role": "user", "content": parts}])
        assert made.text == "USER: [IMG]\ntyped [IMG][IMG_END]\nASSISTANT:"
        place, ids = made.prompt.items[0].placeholder, made.prompt.prompt_token_ids
        mark, end = llm.get_tokenizer().convert_tokens_to_ids(["[IMG]", "[IMG_END]"])
        assert ids.count(mark) == place.num_embeds
        assert ids.count(end) == 1


def test_pictures_bind_in_the_order_of_their_parts(llava: LLM) -> None:
    def ask(*seeds: int) -> list[int]:
        parts = [{"type": "image", "image": picture(s)} for s in seeds]
        return list(llava.chat([{"role": "user", "content": parts}], SHORT)[0].outputs[0].token_ids)

    assert ask(1, 2) == ask(1, 2)
    assert ask(1, 2) != ask(2, 1)


def test_every_spelling_of_a_picture_is_the_same_picture(llava: LLM, tmp_path: Path) -> None:
    out = io.BytesIO()
    picture(4).save(out, "PNG")
    data, path = out.getvalue(), tmp_path / "p.png"
    path.write_bytes(data)
    plain = base64.b64encode(data).decode()
    forms: list[dict[str, Any]] = [
        {"type": "image", "image": picture(4)},
        {"type": "image", "image": path},
        {"type": "image", "path": str(path)},
        {"type": "image", "base64": plain},
        {"type": "image", "base64": f"data:image/png;base64,{plain}"},
        {"type": "image", "url": f"data:image/png;base64,{plain}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{plain}", "detail": "low"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{plain}"},
    ]
    answers = {tuple(llava.chat([{"role": "user", "content": [f]}], SHORT)[0].outputs[0].token_ids) for f in forms}
    assert len(answers) == 1
    other = llava.chat([{"role": "user", "content": [{"type": "image", "image": picture(5)}]}], SHORT)
    assert tuple(other[0].outputs[0].token_ids) not in answers


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ([], "messages"),
        (None, "messages"),
        ("hi", "messages"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "user", "content": 5}], "messages.0.content"),
        ([{"content": "hi"}], "messages.0"),
        ([{"role": 5, "content": "hi"}], "messages.0"),
        ([{"role": "user", "content": "hi"}, "there"], "messages.1"),
        ([{"role": "user", "content": ["a", {"type": "video", "video": "x"}]}], "messages.0.content.1"),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages.0.content.0"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages.0.content.0"),
        ([{"role": "user", "content": [5]}], "messages.0.content.0"),
        ([{"role": "user", "content": "x"}] * 4097, "messages"),
    ],
)
def test_R011_messages_that_are_malformed_are_named(llava: LLM, messages: Any, where: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        llava.chat(messages, ONE)
    assert caught.value.param == where


def test_several_conversations_and_the_one_that_is_wrong(llama: LLM) -> None:
    good = [{"role": "user", "content": "hi"}]
    outputs = llama.chat([good, [{"role": "user"}], good], SHORT, on_error="return")
    assert [o.error is None for o in outputs] == [True, False, True]
    assert outputs[0].outputs[0].token_ids == outputs[2].outputs[0].token_ids
    with pytest.raises(InvalidRequestError, match="prompt 1: "):
        llama.chat([good, [{"role": "user"}]], SHORT)


def test_arguments_reach_the_template(llama: LLM) -> None:
    assert llama.chat([{"role": "user", "content": "a"}], ONE, add_generation_prompt=False)[0].prompt == "USER: a\n"
    renderer = ChatRenderer(llama.get_tokenizer(), "{{ mood }} {{ messages[0].content }}", None)
    assert renderer.render([{"role": "user", "content": "a"}], mood="calm").text == "calm a"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}",
        "{{ raise_exception('no') }}",
        "{{ messages[7].content }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_R019_a_template_that_fails_is_a_typed_error(llama: LLM, template: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ChatRenderer(llama.get_tokenizer(), template, None).render([{"role": "user", "content": "hi"}])
    assert caught.value.code == "template_error"


def test_a_template_may_be_a_file(llama_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    (tmp_path / "t.jinja").write_text("§{{ messages[0].content }}", encoding="utf-8")
    renderer = ChatRenderer(tokenizer, str(tmp_path / "t.jinja"), "{{ 'not this' }}")
    assert renderer.render([{"role": "user", "content": "a"}]).text == "§a"
    with pytest.raises(InvalidConfigError, match="no such file"):
        ChatRenderer(tokenizer, str(tmp_path / "gone.jinja"), None)
    with pytest.raises(InvalidConfigError, match="no such file"):
        ChatRenderer(tokenizer, str(tmp_path), None)

"""Bad input is refused with a typed error that says what and what to do; the matrix rows are in the names."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from core import LLM, SamplingParams
from core.errors import (
    ContextLengthError,
    EngineError,
    InvalidConfigError,
    InvalidRequestError,
    MediaDecodeError,
    MediaError,
    MediaForbiddenError,
    MediaTooLargeError,
    MediaUnsupportedError,
    PromptUpdateError,
)
from core.media.image import load_image

from .conftest import GREEDY, picture, prompt_ids, tokens

LEAKS = re.compile(r"0x[0-9a-f]{4,}|Traceback|/tmp/|site-packages|BytesIO")


def refused(
    llm: LLM, prompt: Any, kind: type[EngineError], code: str, *, says: str | None = None, params: Any = None
) -> None:
    """The prompt is refused as it should be, and leaves nothing behind."""
    with pytest.raises(kind, match=says) as caught:
        llm.generate(prompt, params or GREEDY)
    assert caught.value.code == code
    assert caught.value.status < 500
    assert llm.engine.pool.num_free == llm.engine.pool.num_pages
    assert not llm.engine.scheduler.has_work


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0), ("n", -1), ("n", 10**9), ("n", True), ("n", 1.5),
        ("temperature", -1), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", "hot"),
        ("top_p", 0), ("top_p", 1.1), ("top_k", -2), ("seed", 2**63), ("seed", 0.5),
        ("stop", [""]), ("stop", ["x"] * 5), ("stop", "x" * 257), ("stop", ["x"] * 10**6),
        ("stop_token_ids", [-1]), ("stop_token_ids", list(range(129))),
        ("max_tokens", 0), ("max_tokens", -1), ("logprobs", -1), ("logprobs", 21), ("logprobs", 10**6),
    ],
)  # fmt: skip
def test_R011_R012_R013_R015_sampling_parameters_out_of_range_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=field) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == f"sampling_params.{field}"
    assert len(str(caught.value)) < 300


def test_an_unknown_sampling_parameter_gets_the_nearest_name() -> None:
    with pytest.raises(InvalidRequestError, match="did you mean 'temperature'"):
        SamplingParams.from_mapping({"temprature": 1})


@pytest.mark.parametrize("prompt", ["", [], {"prompt": ""}, {"prompt_token_ids": []}])
def test_R011_an_empty_prompt(llama: LLM, prompt: Any) -> None:
    if prompt == []:
        assert llama.generate([], GREEDY) == []
    else:
        refused(llama, prompt, InvalidRequestError, "invalid_request", says="empty")


@pytest.mark.parametrize(
    "messages", [[], "hi", [{}], [{"role": "user"}], [{"role": "user", "content": [{"type": "x"}]}], [3]]
)
def test_R011_messages_that_are_none(llama: LLM, messages: Any) -> None:
    with pytest.raises(InvalidRequestError):
        llama.chat(messages, GREEDY)


def test_R012_prompt_and_output_must_fit_the_context(llama: LLM) -> None:
    limit = llama.plan.max_model_len
    with pytest.raises(ContextLengthError) as caught:
        llama.generate(prompt_ids(0, 10), SamplingParams(max_tokens=limit))
    assert "10" in str(caught.value)
    assert str(limit) in str(caught.value)
    refused(llama, prompt_ids(0, limit), ContextLengthError, "context_length_exceeded", says=str(limit))
    refused(llama, "x" * (limit * 16 + 1), ContextLengthError, "context_length_exceeded", says="characters")


def test_R012_no_limit_fills_what_is_left(llama_folder: Path) -> None:
    with LLM(str(llama_folder), dtype="float32", max_model_len=40) as llm:
        output = llm.generate(prompt_ids(0, 10), SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))[0]
        assert len(output.outputs[0].token_ids) == 30
        assert output.outputs[0].finish_reason == "length"


@pytest.mark.parametrize("bad", [-1, 10**6, 2.5, True, "3", None])
def test_R014_token_ids_out_of_range_or_of_another_kind(llama: LLM, bad: Any) -> None:
    refused(llama, {"prompt_token_ids": [9, bad]}, InvalidRequestError, "invalid_token", says=r"prompt_token_ids\[1\]")


def test_R081_what_can_never_fit_the_pool_is_refused_at_once(llama_folder: Path, llama: LLM) -> None:
    size = llama.plan.bytes_per_token * 16 * 4
    with LLM(str(llama_folder), dtype="float32", block_size=16, kv_cache_bytes=size) as llm:
        assert llm.plan.max_model_len == 64
        refused(llm, prompt_ids(0, 64), ContextLengthError, "context_length_exceeded")


# ---- pictures -----------------------------------------------------------------------------------------------------------


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


GOOD = png(picture())


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (b"", MediaDecodeError, "invalid_image"),
        (GOOD[: len(GOOD) // 2], MediaDecodeError, "invalid_image"),
        (b"<html><body>hello</body></html>", MediaDecodeError, "invalid_image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, MediaDecodeError, "invalid_image"),
        (png(picture(), "TIFF"), MediaUnsupportedError, "unsupported_image"),
        (png(picture(), "BMP"), MediaUnsupportedError, "unsupported_image"),
        (b"%!PS-Adobe", MediaUnsupportedError, "unsupported_image"),
    ],
    ids=["empty", "truncated", "html", "png header alone", "tiff", "bmp", "eps"],
)
def test_R026_R027_bytes_that_are_no_usable_picture(llava: LLM, data: bytes, kind: type[MediaError], code: str) -> None:
    with pytest.raises(kind) as caught:
        llava.generate({"prompt": "<image>", "multi_modal_data": {"image": data}}, GREEDY)
    assert caught.value.code == code
    assert not LEAKS.search(str(caught.value))


def test_R027_a_picture_that_unpacks_to_gigabytes_is_refused_by_its_header() -> None:
    bomb = png(Image.new("1", (20000, 20000)))
    with pytest.raises(MediaTooLargeError, match="megapixels"):
        load_image(bomb)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (800, 4), (4000, 20)])
def test_R028_very_small_and_very_long_pictures_are_served(llava: LLM, size: tuple[int, int]) -> None:
    assert len(tokens(llava, {"prompt": "<image>", "multi_modal_data": {"image": picture(1, *size)}})[0]) == 64


def test_R029_what_a_person_sees_is_what_the_model_gets() -> None:
    base = Image.new("RGB", (4, 2), (255, 0, 0))
    base.putpixel((0, 0), (0, 0, 255))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = png(base, "PNG", exif=exif)
        seen = load_image(data)
        assert np.array_equal(np.asarray(seen), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
        assert seen.size == ((4, 2) if orientation < 5 else (2, 4))
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert load_image(png(half)).getpixel((0, 0)) == pytest.approx((127, 127, 127), abs=1)
    assert load_image(png(Image.new("LA", (1, 1), (0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9] * 256)
    assert load_image(png(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(png(palette)).getpixel((0, 0)) == (9, 9, 9)
    assert load_image(png(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "JPEG")).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [load_image(png(deep)).getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]
    frames = [Image.new("RGB", (2, 2), c) for c in ("red", "lime")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = png(frames[0], kind, save_all=True, append_images=frames[1:])
        assert load_image(data).getpixel((0, 0))[0] > 250


def data_uri(data: bytes, prefix: str = "data:image/png;base64,") -> str:
    return prefix + base64.b64encode(data).decode()


def test_R030_data_uris_in_every_spelling() -> None:
    for uri in (data_uri(GOOD), data_uri(GOOD, "DATA:image/PNG;BASE64,"), data_uri(GOOD, "  data:;base64, ")):
        assert np.array_equal(np.asarray(load_image(uri)), np.asarray(picture()))
    spaced = data_uri(GOOD)
    assert load_image(spaced[:60] + "\n " + spaced[60:]).size == picture().size
    for bad in (
        "data:image/png;base64",
        "data:image/png,abc",
        "data:image/png;base64,@@@",
        "data:image/png;base64,",
        "data:,",
    ):
        with pytest.raises(MediaDecodeError):
            load_image(bad)
    with pytest.raises(MediaTooLargeError):
        load_image("data:image/png;base64," + "A" * 30_000_000)


@pytest.mark.parametrize(
    "url", ["http://localhost/x.png", "https://h/x.png", "file:///etc/passwd", "ftp://h/x", "gopher://h"]
)
def test_R033_no_url_is_fetched(llava: LLM, url: str) -> None:
    with pytest.raises(MediaForbiddenError) as caught:
        llava.chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], GREEDY)
    assert caught.value.code == "media_url_forbidden"


def test_a_path_that_is_not_there_says_so(llava: LLM) -> None:
    with pytest.raises(MediaDecodeError, match=r"nowhere\.png"):
        llava.generate({"prompt": "<image>", "multi_modal_data": {"image": "nowhere.png"}}, GREEDY)


def test_R031_more_items_than_allowed_and_modalities_that_are_not(llava_folder: Path, llama: LLM) -> None:
    with LLM(str(llava_folder), dtype="float32", limit_mm_per_prompt={"image": 2}) as llm:
        three = {"prompt": "<image>" * 3, "multi_modal_data": {"image": [picture()] * 3}}
        refused(llm, three, InvalidRequestError, "too_many_items", says="limit_mm_per_prompt")
        sound = {"prompt": "x", "multi_modal_data": {"audio": [0.0]}}
        refused(llm, sound, MediaUnsupportedError, "unsupported_modality", says="audio")
    refused(
        llama, {"prompt": "x", "multi_modal_data": {"image": picture()}}, MediaUnsupportedError, "unsupported_modality"
    )


# ---- placeholders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["<image>", "</s>", "<s><image></s>", "a <image> b", "<pad>"])
@pytest.mark.parametrize("with_picture", [False, True])
def test_R044_what_a_user_types_is_text(llava: LLM, typed: str, with_picture: bool) -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": f"before {typed} after"}]
    if with_picture:
        parts.insert(0, {"type": "image", "image": picture()})
    output = llava.chat([{"role": "user", "content": parts}], SamplingParams(max_tokens=1))[0]
    tokenizer = llava.get_tokenizer()
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    rows = output.prompt_token_ids.count(image_id)
    plain = llava.chat(
        [{"role": "user", "content": [*parts[:-1], {"type": "text", "text": "x"}]}], SamplingParams(max_tokens=1)
    )
    assert rows == plain[0].prompt_token_ids.count(image_id)
    assert (rows > 0) == with_picture
    specials = set(tokenizer.all_special_ids)
    assert [t for t in output.prompt_token_ids if t in specials] == [
        t for t in plain[0].prompt_token_ids if t in specials
    ]
    rest = [t for t in output.prompt_token_ids if t not in specials]
    assert f"before {typed} after" in tokenizer.decode(rest)


def test_R045_placeholders_and_items_that_do_not_agree(llava: LLM) -> None:
    for prompt, images in (("<image> <image>", 1), ("<image>", 2), ("none", 1), ("<image>", 0)):
        data = {"prompt": prompt, "multi_modal_data": {"image": [picture()] * images}}
        refused(llava, data, PromptUpdateError, "placeholder_mismatch")
    image_id = llava.get_tokenizer().convert_tokens_to_ids("<image>")
    refused(llava, {"prompt_token_ids": [9, image_id, 9]}, PromptUpdateError, "placeholder_mismatch")


def test_embeddings_in_the_place_of_a_picture(llava: LLM) -> None:
    with torch.inference_mode():
        pixels = llava.engine.inputs.mm_processor.info.get_image_processor()(picture(), return_tensors="pt")[
            "pixel_values"
        ]
        embeddings = llava.engine.model.get_multimodal_embeddings(pixel_values=pixels)
    prompt = "a <image> b"
    expected = tokens(llava, {"prompt": prompt, "multi_modal_data": {"image": picture()}})
    assert tokens(llava, {"prompt": prompt, "multi_modal_data": {"image": embeddings[0]}}) == expected
    assert tokens(llava, {"prompt": prompt, "multi_modal_data": {"image": {"pixel_values": pixels}}}) == expected
    for bad in (embeddings[0][:, :-1], embeddings[0] * float("nan")):
        with pytest.raises(InvalidRequestError):
            llava.generate({"prompt": prompt, "multi_modal_data": {"image": bad}}, GREEDY)


def test_options_of_the_engine_that_are_wrong(llama_folder: Path) -> None:
    with pytest.raises(InvalidConfigError, match="did you mean 'max_model_len'"):
        LLM(str(llama_folder), max_model_length=10)
    for option in ({"dtype": "int3"}, {"block_size": 0}, {"max_num_seqs": "many"}, {"kv_cache_bytes": 10}):
        with pytest.raises(InvalidConfigError, match=next(iter(option))):
            LLM(str(llama_folder), **option)
    with pytest.raises(InvalidConfigError, match="no such file"):
        LLM(str(llama_folder), chat_template="nowhere.jinja")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidConfigError, match="no CUDA device"):
            LLM(str(llama_folder), device="cuda")

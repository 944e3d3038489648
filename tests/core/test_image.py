"""The door for pictures: every form a caller may give, every way it may be wrong."""

from __future__ import annotations

import base64
import io
import os
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import MediaDecodeError, MediaError, MediaTooLargeError, MediaUnsupportedError
from core.media.image import MAX_BYTES, MAX_PIXELS, MAX_SIDE, _pillow, load_image

from .conftest import picture

LEAKS = re.compile(r"0x[0-9a-f]{4,}|Traceback|site-packages|BytesIO")
EXIF_ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def quarters() -> Image.Image:
    """Red, green, blue and grey quarters of 16 by 8 pixels: every turn and flip of it looks different."""
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :16], pixels[:8, 16:], pixels[8:, :16], pixels[8:, 16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 128
    return Image.fromarray(pixels)


def corners(image: Image.Image) -> str:
    """The colours of the corners, clockwise from the top left, as letters."""
    w, h = image.size
    found = [image.getpixel(at) for at in ((1, 1), (w - 2, 1), (w - 2, h - 2), (1, h - 2))]
    return "".join("w" if min(p) > 90 else "rgb"[int(np.argmax(p))] for p in found)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "seen"),
    # As drawn, clockwise: r g w b. What each orientation says of it, in the words of the EXIF standard.
    [(1, "rgwb"), (2, "grbw"), (3, "wbrg"), (4, "bwgr"), (5, "rbwg"), (6, "brgw"), (7, "wgrb"), (8, "gwbr")],
)
def test_R029_pictures_stand_as_a_person_sees_them(kind: str, orientation: int, seen: str) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    shown = load_image(encoded(quarters(), kind, exif=exif, **options))
    assert corners(shown) == seen
    assert shown.mode == "RGB"
    assert shown.size == ((32, 16) if orientation < 5 else (16, 32))


def test_R029_transparency_is_laid_over_white() -> None:
    ramp = Image.fromarray(np.stack([np.zeros(256), np.arange(256)], axis=-1).astype(np.uint8)[None], "LA")
    grey = np.asarray(load_image(encoded(ramp)))[0, :, 0].astype(int)
    np.testing.assert_allclose(grey, 255 - np.arange(256), atol=1)


@pytest.mark.parametrize(
    ("mode", "kept", "clear"), [("RGB", (10, 20, 30), (1, 2, 3)), ("L", 10, 3), ("P", 10, 3), ("I;16", 2570, 771)]
)
def test_R029_a_colour_that_a_png_declares_clear_is_white(mode: str, kept: Any, clear: Any) -> None:
    image = Image.new(mode, (2, 1), kept)
    if mode == "P":
        image.putpalette([i for n in range(256) for i in (n, n, n)])
    image.putpixel((1, 0), clear)
    data = encoded(image, transparency=clear)
    assert "transparency" in Image.open(io.BytesIO(data)).info
    seen = load_image(data)
    assert [seen.getpixel((x, 0)) for x in range(2)] == [kept if mode == "RGB" else (10, 10, 10), (255, 255, 255)]


def test_R029_sixteen_bits_become_eight() -> None:
    deep = Image.fromarray((np.arange(256, dtype=np.uint16) * 257)[None])
    assert np.asarray(load_image(encoded(deep)))[0, :, 1].tolist() == list(range(256))


def test_R029_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=20)
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert np.argmax(load_image(data).getpixel((0, 0))) == 0


def test_a_frame_that_the_caller_chose_is_kept() -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "lime", "blue")]
    opened = Image.open(io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    opened.seek(2)
    assert np.argmax(load_image(opened).getpixel((0, 0))) == 2


def test_a_picture_of_the_callers_is_not_changed() -> None:
    mine = picture().convert("RGBA")
    before = mine.tobytes()
    load_image(mine)
    assert (mine.mode, mine.tobytes()) == ("RGBA", before)


WHOLE = encoded(picture(0, 400, 300), "PNG")


@pytest.mark.parametrize("part", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("opened", [False, True], ids=["bytes", "opened by the caller"])
def test_R026_truncated_pictures(part: float, opened: bool) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        data = encoded(picture(0, 400, 300), kind)
        cut = data[: int(len(data) * part)]
        if opened:
            try:
                cut = Image.open(io.BytesIO(cut))  # type: ignore[assignment]
            except OSError:
                continue
        with pytest.raises(MediaDecodeError) as caught:
            load_image(cut)
        assert caught.value.code == "invalid_image"
        assert not LEAKS.search(str(caught.value))


def test_R026_any_broken_byte_is_a_media_error_or_a_picture() -> None:
    rng = np.random.default_rng(0)
    small = {kind: encoded(picture(0, 20, 16), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")}
    failed: list[str] = []
    for _ in range(400):
        data = bytearray(small[("PNG", "JPEG", "WEBP", "GIF")[rng.integers(4)]])
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        try:
            assert load_image(bytes(data)).mode == "RGB"
        except MediaError as e:
            failed.append(str(e))
    assert len(failed) > 50
    assert not any(LEAKS.search(text) for text in failed)


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"II*\0", "TIFF"), (b"8BPS", "PSD"), (b"BM", "BMP"), (b"%PDF-1.7", "PDF"), (b"\0\0\0\x1cftypheic", "HEIF")],
)
def test_R027_formats_that_are_not_taken_are_named(magic: bytes, name: str) -> None:
    with pytest.raises(MediaUnsupportedError, match=f"{name}.*PNG, JPEG, WEBP, GIF") as caught:
        load_image(magic + b"\0" * 64)
    assert caught.value.code == "unsupported_image"


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (8000, MAX_PIXELS // 8000 + 1)])
def test_R027_pictures_over_the_limit_are_refused_by_their_header(size: tuple[int, int]) -> None:
    for value in (encoded(Image.new("1", size)), Image.new("1", size)):
        with pytest.raises(MediaTooLargeError, match=f"{size[0]}×{size[1]}") as caught:
            load_image(value)
        assert (caught.value.code, caught.value.status) == ("image_too_large", 413)


def test_R027_more_bytes_than_the_limit(tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    with big.open("wb") as f:
        f.truncate(MAX_BYTES + 1)
    uri = "data:;base64," + "A" * ((MAX_BYTES + 3) * 4 // 3 + 4)
    for value in (b"\0" * (MAX_BYTES + 1), big, str(big), uri):
        with pytest.raises(MediaTooLargeError, match="20 MiB"):
            load_image(value)


@pytest.mark.parametrize("name", ["nowhere.png", "a\0b", "x" * 5000, "."])
def test_paths_that_are_no_pictures_say_why_in_few_words(name: str) -> None:
    with pytest.raises(MediaDecodeError, match="cannot be read: ") as caught:
        load_image(name)
    assert len(str(caught.value)) < 400


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaDecodeError, match="it is no file"):
        load_image(tmp_path / "pipe")


def test_paths_are_no_way_in_for_what_a_client_sends(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(WHOLE)
    assert load_image(str(tmp_path / "p.png")).size == (400, 300)
    with pytest.raises(MediaError) as caught:
        load_image(str(tmp_path / "p.png"), allow_paths=False)
    assert caught.value.code == "media_url_forbidden"


def test_R030_a_data_uri_may_be_wrapped_at_any_place() -> None:
    text = base64.encodebytes(WHOLE).decode()
    assert load_image("data:image/png;base64," + text).size == (400, 300)
    assert load_image(" DATA:image/png;charset=x;BASE64 ,\r\n" + text.replace("\n", "\r\n\t")).size == (400, 300)


@pytest.mark.parametrize(
    "rest", ["image/png;base64", "image/png,abc", ";base64,%%%", ";base64,QQ", ";base64,", ",", ""]
)
def test_R030_data_uris_that_are_none(rest: str) -> None:
    with pytest.raises(MediaDecodeError) as caught:
        load_image("data:" + rest)
    assert not LEAKS.search(str(caught.value))


# ---- the program around it -----------------------------------------------------------------------------------------


def test_threads_that_open_pictures_leave_the_programs_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that overlap, so that whoever set the filters aside and put them back would put back the other's."""
    data, opened = encoded(quarters()), Image.open
    load_image(data)
    before = list(warnings.filters)
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    steps = {"first": (first_is_in, second_is_in), "second": (second_is_in, first_is_out)}

    def held(*args: Any, **options: Any) -> Any:
        here, other = steps[threading.current_thread().name]
        here.set()
        assert other.wait(60)
        return opened(*args, **options)

    monkeypatch.setattr(Image, "open", held)
    first, second = (threading.Thread(target=load_image, args=(data,), name=name) for name in steps)
    first.start()
    assert first_is_in.wait(60)
    second.start()
    first.join(60)
    first_is_out.set()
    second.join(60)
    assert not first.is_alive()
    assert not second.is_alive()
    assert warnings.filters == before


@pytest.mark.parametrize("action", ["error", "always", None])
def test_pillows_warning_of_many_pixels_is_ours_to_tell(action: Any) -> None:
    """Only a program that asked for it sees it, and one that makes it an error gets the error that it should."""
    many = encoded(Image.new("1", (10_000, 10_000)))
    assert MAX_PIXELS < 10_000**2
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        if action is not None:
            warnings.simplefilter(action, Image.DecompressionBombWarning)
        _pillow.cache_clear()
        with pytest.raises(MediaTooLargeError, match="megapixels"):
            load_image(many)
        assert len(caught) == (action == "always")
    _pillow.cache_clear()

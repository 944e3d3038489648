"""Pictures: from bytes, paths, data: URIs or objects to PIL images, within limits that are checked before decoding.

What a person sees is what the model gets: EXIF orientation is applied, transparency is flattened over white, and of an
animation the first frame is taken.

Pictures are decoded in this process, clips in another (`audio_pool`): four formats whose work the checked size bounds, against
all that FFmpeg reads; and pixels from another process would make a photograph of 12 megapixels take 97 ms in the place of 70.
"""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import MediaDecodeError, MediaTooLargeError, MediaUnsupportedError
from .source import Kind, is_url, read_path, read_url

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
PICTURE = Kind("picture", "image", "image_url", "invalid_image", "image_too_large", "image/png")


def load_image(value: Any, *, allow_paths: bool = True) -> Any:
    """Open one picture.

    Args:
        value: A PIL image, bytes, a path, a `data:` URI, or an array `(height, width, 3)` uint8.
        allow_paths: Whether strings may name files: true for the embedder's own calls, false for what a client sends.

    Returns:
        A PIL image in RGB. Arrays are returned as they are; the SDK turns them into pictures.

    Raises:
        MediaError: It is not a picture, too large, of a format or from a place that is not allowed.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        _check_size(*value.size)
        return _decoded(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decode_image(bytes(value))
    if isinstance(value, Path) or (isinstance(value, str) and allow_paths and not is_url(value)):
        return decode_image(read_path(Path(value).expanduser(), PICTURE, MAX_BYTES))
    if isinstance(value, str):
        return decode_image(read_url(value, PICTURE, MAX_BYTES))
    return value


def decode_image(data: bytes) -> Any:
    """Bytes → an RGB picture. The header is checked before anything is decoded."""
    pillow = _pillow()
    if not data:
        raise MediaDecodeError("the picture is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise MediaTooLargeError(f"the picture has more than {MAX_BYTES // 2**20} MiB")
    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as e:
        raise MediaTooLargeError(f"the picture has more than {MAX_PIXELS // 10**6} megapixels") from e
    except Exception as e:  # a parser of outside bytes fails in many ways, and its messages hold addresses
        raise _not_a_picture(data) from e
    _check_size(*image.size)
    return _decoded(image)


@functools.cache
def _pillow() -> ModuleType:
    """`PIL.Image`, whose warning of many pixels is not shown: our limits are lower, and raise.

    The filter is set once, not around each picture: `warnings.catch_warnings` puts back the whole process's filters, and of two
    threads that leave it in the wrong order one puts back the other's. It is the last one: what the program says of warnings,
    such as that they are errors, goes before.
    """
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
    return Image


def _decoded(image: Any) -> Any:
    """The frame at hand (of bytes: the first) in RGB; Pillow decodes only now, and what goes wrong is the picture's fault."""
    try:
        image.load()
        return _flatten(image)
    except Exception as e:
        raise MediaDecodeError("the picture is damaged or truncated") from e


def _not_a_picture(data: bytes) -> MediaDecodeError | MediaUnsupportedError:
    known = ", ".join(FORMATS)
    other = {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%!PS": "EPS", b"8BPS": "PSD", b"BM": "BMP", b"%PDF": "PDF"}
    name = next((n for magic, n in other.items() if data.startswith(magic)), None)
    if name is None and data[4:8] == b"ftyp":
        name = "HEIF, AVIF or video"
    if name is not None:
        return MediaUnsupportedError(f"{name} pictures are not supported; use one of {known}")
    return MediaDecodeError(f"these bytes are not a picture; supported formats: {known}")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise MediaDecodeError(f"a picture of {width}×{height} pixels is empty")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaTooLargeError(
            f"a picture of {width}×{height} pixels is over the limit of {MAX_SIDE} a side and "
            f"{MAX_PIXELS // 10**6} megapixels; make it smaller"
        )


def _flatten(image: Any) -> Any:
    """EXIF orientation applied, 16 bits brought to 8, transparency laid over white: RGB."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and transparent is None:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        scale = 257.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 1.0
        image = Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))
        if isinstance(transparent, int):
            image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image.convert("RGB")

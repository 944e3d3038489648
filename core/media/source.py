"""Where a medium's bytes come from: a path or a `data:` URI. Nothing is fetched here, and no message names an address."""

from __future__ import annotations

import base64
import binascii
import re
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import MediaDecodeError, MediaForbiddenError, MediaTooLargeError

_URL = re.compile(r"^\s*([a-zA-Z][a-zA-Z0-9+.-]*):")


class Kind(NamedTuple):
    """One kind of medium, as messages and error codes call it.

    Attributes:
        noun: `"picture"`.
        param: The argument at fault where it came as a path.
        url_param: The argument at fault where it came as a URL.
        invalid, too_large: Error codes.
        mime: An example for messages.
    """

    noun: str
    param: str
    url_param: str
    invalid: str
    too_large: str
    mime: str

    def damaged(self, message: str, *, url: bool = False) -> MediaDecodeError:
        """The bytes are not what they should be."""
        return MediaDecodeError(message, code=self.invalid, param=self.url_param if url else self.param)

    def excessive(self, message: str, *, url: bool = False) -> MediaTooLargeError:
        """There is more than a limit allows."""
        return MediaTooLargeError(message, code=self.too_large, param=self.url_param if url else self.param)


def is_url(value: str) -> bool:
    """Whether a string names a place by a scheme rather than by a path."""
    match = _URL.match(value)
    return match is not None and len(match[1]) > 1  # one letter is a Windows drive


def is_remote(value: str) -> bool:
    """Whether a string names a place on some host."""
    return value.lstrip()[:8].lower().startswith(("http:", "https:"))


def open_path(path: Path, kind: Kind) -> BinaryIO:
    """Open a regular file.

    Raises:
        MediaDecodeError: There is none, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise kind.damaged(f"{kind.noun} {_shown(path)} cannot be read: it is no file")
        return path.open("rb")
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        why = getattr(e, "strerror", None) or "this is no path"
        raise kind.damaged(f"{kind.noun} {_shown(path)} cannot be read: {why}") from e


def read_path(path: Path, kind: Kind, most: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        MediaError: There is none, it cannot be read, or it has more than `most` bytes.
    """
    with open_path(path, kind) as file:
        try:
            data = file.read(most + 1)
        except OSError as e:
            raise kind.damaged(f"{kind.noun} {_shown(path)} cannot be read: {e.strerror}") from e
    if len(data) > most:
        raise kind.excessive(f"{kind.noun} {_shown(path)} has more than {most // 2**20} MiB")
    return data


def read_url(value: str, kind: Kind, most: int) -> bytes:
    """The bytes in a `data:` URI.

    Raises:
        MediaForbiddenError: It is another URL.
        MediaError: It is malformed, or holds more than `most` bytes.
    """
    scheme, _, rest = value.strip().partition(":")
    if scheme.lower() != "data":
        raise MediaForbiddenError(
            f"{kind.noun}s are not fetched from {scheme.lower()}: URLs here; send the {kind.noun} itself, as bytes or a "
            "data: URI",
            param=kind.url_param,
        )
    header, comma, payload = rest.partition(",")
    if not comma:
        raise kind.damaged("this data: URI has no comma, so it has no data", url=True)
    if not header.lower().rstrip().endswith(";base64"):
        raise kind.damaged(f"a data: URI must be base64 (data:{kind.mime};base64,…)", url=True)
    if len(payload) > most * 4 // 3 + 4:
        raise kind.excessive(f"the {kind.noun} in this data: URI has more than {most // 2**20} MiB", url=True)
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError) as e:
        raise kind.damaged("the data: URI is not valid base64", url=True) from e


def _shown(path: Path) -> str:
    text = repr(str(path))
    return text if len(text) <= 200 else f"{text[:200]}…"

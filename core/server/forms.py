"""Forms with a file: read within bounds, checked like any other request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from .errors import HttpError
from .protocol.base import RequestBody

MAX_FIELDS, MAX_FIELD_BYTES = 64, 256 * 1024
Form = TypeVar("Form", bound=RequestBody)


class Upload(NamedTuple):
    """A file and the fields beside it."""

    data: bytes
    fields: Mapping[str, Any]


async def read_form(request: Request, form: type[Form]) -> tuple[bytes, Form]:
    """The file and the checked fields of a form.

    Raises:
        HttpError: It is malformed, or has no file.
        RequestValidationError: A field is wrong.
    """
    upload = await _read(request)
    try:
        return upload.data, form.model_validate(upload.fields)
    except ValidationError as e:
        raise RequestValidationError(e.errors(include_url=False, include_input=False)) from None


async def _read(request: Request) -> Upload:
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as given:
            fields: dict[str, Any] = {}
            data: bytes | None = None
            for name, value in given.multi_items():
                if isinstance(value, UploadFile):
                    if name != "file":
                        raise HttpError(400, f"the file is called 'file', not {name[:60]!r}", param="file")
                    data = await value.read()
                elif name.endswith("[]"):
                    fields.setdefault(name.removesuffix("[]"), []).append(value)
                elif name in fields:
                    raise HttpError(400, f"{name[:60]!r} is there twice", param=name[:60])
                else:
                    fields[name] = value
    except HTTPException as e:  # what the parser finds
        raise HttpError(400, f"the form cannot be read: {e.detail}", code="invalid_form") from e
    if data is None:
        raise HttpError(400, "the form has no file", code="missing_parameter", param="file")
    return Upload(data, fields)

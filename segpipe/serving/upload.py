"""Read an uploaded image into memory, up to a size limit. Bytes are counted as they arrive: headers are not trusted."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from segpipe.files import safe_name

FIELD = "image"
_BODY_TYPES = ("application/octet-stream", "application/gzip", "application/x-gzip")
"""Accepted content types of a body, in addition to image/*; a volume is gzipped."""
_FORM_OVERHEAD_BYTES = 1 << 16
"""Allowance for the boundaries and part headers around the file."""


class Refused(Exception):
    """The request is answered with a 4xx status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


async def read_upload(request: Request, max_bytes: int) -> tuple[str, bytes]:
    """Read the uploaded image from the field `image` of a multipart form, or from the body itself (image/*).

    Args:
        request: the request.
        max_bytes: largest accepted file.

    Returns:
        File name and content.

    Raises:
        Refused: 400 for a form without the field, 413 for too many bytes, 415 for another kind of body.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    form = content_type == "multipart/form-data"
    if not form and not content_type.startswith("image/") and content_type not in _BODY_TYPES:
        raise Refused(
            415,
            f"send the image as field `{FIELD}` of multipart/form-data, or as the body (image/*), not as {content_type or 'nothing'}",
        )
    body_limit = max_bytes + (_FORM_OVERHEAD_BYTES if form else 0)
    content_length = request.headers.get("content-length", "")
    if content_length.isdigit() and int(content_length) > body_limit:
        raise _too_large(max_bytes)
    bounded = Request(request.scope, _bounded(request.receive, body_limit, max_bytes))
    try:
        name, content = await _form_field(bounded) if form else ("upload", await bounded.body())
    except ClientDisconnect as error:
        raise Refused(400, "the connection was closed during the upload") from error
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    return name, content


async def _form_field(request: Request) -> tuple[str, bytes]:
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            field = form.get(FIELD)
            if not isinstance(field, UploadFile):
                raise Refused(400, f"the form has no file in the field `{FIELD}`: curl -F {FIELD}=@X.png ...")
            return safe_name(field.filename or "upload"), await field.read()
    except MultiPartException as error:
        raise Refused(400, f"not a valid form: {error.message}") from error
    except HTTPException as error:
        raise Refused(400, f"not a valid form: {error.detail}") from error


def _bounded(receive: Receive, body_limit: int, max_bytes: int) -> Receive:
    """Wrap `receive` so that it raises `Refused` once more than `body_limit` bytes have arrived."""
    total = 0

    async def count_bytes() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > body_limit:
            raise _too_large(max_bytes)
        return message

    return count_bytes


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, f"the image is too large: at most {max_bytes / 2**20:g} MB")

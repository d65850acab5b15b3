"""An uploaded image, in memory and bounded: bytes are counted as they arrive, whatever the headers promise."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from segpipe.files import safe_name

FIELD = "image"
_BODIES = ("application/octet-stream", "application/gzip", "application/x-gzip")
"""Kinds of a body beside image/*; a volume comes gzipped."""
_FORM_OVERHEAD = 1 << 16  # boundaries and part headers around the file


class Refused(Exception):
    """An answer with a 4xx status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


async def read_upload(request: Request, max_bytes: int) -> tuple[str, bytes]:
    """Name and content of the uploaded image: the field `image` of a multipart form, or the body itself (image/*).

    Raises `Refused`: 400 for a form without the field, 413 for too many bytes, 415 for another kind of body.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not form and not kind.startswith("image/") and kind not in _BODIES:
        raise Refused(
            415,
            f"send the image as field `{FIELD}` of multipart/form-data, or as the body (image/*), not as {kind or 'nothing'}",
        )
    allowed = max_bytes + (_FORM_OVERHEAD if form else 0)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > allowed:
        raise _too_large(max_bytes)
    bounded = Request(request.scope, _bounded(request.receive, allowed, max_bytes))
    try:
        name, content = await _form_field(bounded) if form else ("upload", await bounded.body())
    except ClientDisconnect as error:
        raise Refused(400, "the upload broke off") from error
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


def _bounded(receive: Receive, allowed: int, max_bytes: int) -> Receive:
    """`receive`, until more than `allowed` bytes have come."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > allowed:
            raise _too_large(max_bytes)
        return message

    return counted


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, f"the image is too large: at most {max_bytes / 2**20:g} MB")

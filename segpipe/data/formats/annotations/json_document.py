"""Untrusted JSON files: read within a size limit, or recognised by their beginning and end without parsing; images in them."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from segpipe.errors import DataError
from segpipe.files import read_bytes

_PEEK_BYTES = 1 << 16
_SUFFIXES_BY_MAGIC = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)


def read_json(path: Path, max_bytes: int) -> Any:
    """Return the value that a JSON file holds: an object, a list, ...

    Raises:
        DataError: the file is larger than `max_bytes`, or not valid JSON.
    """
    try:
        return json.loads(read_bytes(path, max_bytes))
    except DataError:
        raise
    except (
        ValueError,
        RecursionError,
    ) as error:  # also not UTF-8, a number with thousands of digits, thousands of brackets
        raise DataError(f"is not valid JSON: {error}", where=path, fix="restore the file or write it again") from error


def read_document(path: Path, max_bytes: int) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        DataError: the file is larger than `max_bytes`, not valid JSON, or not an object.
    """
    content = read_json(path, max_bytes)
    if not isinstance(content, dict):
        raise DataError("is not a JSON object", where=path, found=type(content).__name__, expected="{...}")
    return content


def peek(path: Path) -> bytes:
    """Return the first and the last 64 KiB of a file; nothing if it cannot be read."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_PEEK_BYTES)
            stream.seek(max(_PEEK_BYTES, path.stat().st_size - _PEEK_BYTES))
            return start + stream.read(_PEEK_BYTES)
    except OSError:
        return b""


def embedded_suffix(image_data: object) -> str:
    """Return the suffix that fits the first bytes of an image in base64.

    Args:
        image_data: the value of `imageData`.

    Raises:
        DataError: it is not an image in base64.
    """
    try:
        start = base64.b64decode(image_data[:64], validate=True) if isinstance(image_data, str) else b""
    except (binascii.Error, ValueError) as error:
        raise DataError("the embedded image is not base64", fix="put the image next to the JSON") from error
    suffix = next((suffix for magic, suffix in _SUFFIXES_BY_MAGIC if start.startswith(magic)), None)
    if suffix is None:
        raise DataError(
            "has no image",
            found="imageData that is not an image" if start else "no file next to it, and no imageData",
            fix="put the image next to the JSON",
        )
    return suffix


def embedded_image(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of the image that a JSON file holds in `imageData`.

    Raises:
        DataError: they are not valid base64.
    """
    image_data = read_document(path, max_bytes).get("imageData")
    try:
        return base64.b64decode(image_data if isinstance(image_data, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("the embedded image is not base64", where=path, fix="put the image next to the JSON") from error

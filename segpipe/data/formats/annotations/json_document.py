"""Untrusted JSON files: read within a size limit, or recognised by their beginning and end without parsing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segpipe.errors import DataError
from segpipe.files import read_bytes

_PEEK_BYTES = 1 << 16


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

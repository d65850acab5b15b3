"""JSON from outside: bounded, whole, and looked at without being read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segpipe.errors import DataError
from segpipe.files import read_bytes

_PEEK = 1 << 16


def read_document(path: Path, max_bytes: int) -> dict[str, Any]:
    """The object that a JSON file holds. Raises DataError, naming the file, for one that is too large, broken or no object."""
    try:
        content = json.loads(read_bytes(path, max_bytes))
    except DataError:
        raise
    except (
        ValueError,
        RecursionError,
    ) as error:  # no JSON, no UTF-8, a number of thousands of digits, a thousand brackets
        raise DataError(f"is not valid JSON: {error}", where=path, fix="restore the file or write it anew") from error
    if not isinstance(content, dict):
        raise DataError("is no JSON object", where=path, found=type(content).__name__, expected="{...}")
    return content


def peek(path: Path) -> bytes:
    """The beginning and the end of a file, enough to see what it is; nothing where it cannot be read."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_PEEK)
            stream.seek(max(_PEEK, path.stat().st_size - _PEEK))
            return start + stream.read(_PEEK)
    except OSError:
        return b""

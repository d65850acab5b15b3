"""Untrusted YAML files: read within limits on size, depth and repetition, with every fault as one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segpipe.errors import DataError
from segpipe.files import read_bytes

_MAX_DEPTH = 50


def read_yaml(path: Path, max_bytes: int) -> Any:
    """Return the content of a YAML file: mappings, lists, texts, numbers, dates, booleans or None.

    Raises:
        DataError: the file cannot be read, is larger than `max_bytes`, or is not valid YAML; see `parse_yaml`.
    """
    return parse_yaml(read_bytes(path, max_bytes), path)


def parse_yaml(content: bytes | str, where: Path) -> Any:
    """Return the content of YAML text.

    Aliases (`*name`) are refused: a few of them can stand for billions of values.

    Args:
        content: the text; bytes are UTF-8, or UTF-16 with a byte order mark.
        where: the file, for errors.

    Raises:
        DataError: the text is not valid YAML, is nested more than 50 levels deep, or has aliases.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it is ten times faster
    try:
        _check_events(yaml.parse(content, Loader=loader), where)
        return yaml.load(content, Loader=loader)  # noqa: S506 - both loaders are safe
    except DataError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: impossible dates, numbers of thousands of digits
        raise DataError(f"is not valid YAML: {error}", where=where) from error


def _check_events(events: Any, where: Path) -> None:
    """Raise DataError if the text has aliases or is nested too deep."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise DataError(
                "is YAML with aliases",
                where=where,
                found=f"*{event.anchor}",
                fix="write the value in place of the alias",
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise DataError("is YAML nested too deep", where=where, expected=f"at most {_MAX_DEPTH} levels")

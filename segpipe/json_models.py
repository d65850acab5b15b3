"""Read JSON files as pydantic models; a file that does not fit gives an error of one line."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import read_json

Model = TypeVar("Model", bound=BaseModel)


def read_model(
    path: Path,
    model: type[Model],
    *,
    error_type: type[SegpipeError] = ConfigError,
    kind: str | None = None,
    fix: str | None = None,
    max_bytes: int = 1 << 28,
) -> Model:
    """Read and validate a JSON file.

    Args:
        path: the file.
        model: the pydantic model of its content.
        error_type: the error that is raised if the content does not fit the model.
        kind: what the file should be, such as "selection"; the error then says "is not a valid selection".
        fix: what the user can do about it; by default, for an unknown key, the nearest known one.
        max_bytes: the largest size in bytes that is accepted; checked before the file is read.

    Returns:
        The validated model.

    Raises:
        DataError: the file cannot be read, is too large or is not JSON.
        SegpipeError: the content does not fit; an `error_type` that names the first wrong key.
    """
    content = read_json(path, max_bytes)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = validation_error(error, path, model)
        what = f"is not a valid {kind}: {first.what}" if kind else first.what
        raise error_type(what, where=path, found=first.found, expected=first.expected, fix=fix or first.fix) from error


def validation_error(error: ValidationError, where: str | Path, model: type[BaseModel]) -> ConfigError:
    """Turn a pydantic error into a ConfigError of one line about the first wrong key.

    Args:
        error: what pydantic raised.
        where: the file or section that was validated, for the message.
        model: the model that was validated against.

    Returns:
        An error with the key, the value found and what was expected; for an unknown key, with the nearest known one.
    """
    details = error.errors()
    paths = [_key_path(model, detail["loc"]) for detail in details]
    first, key = details[0], ".".join(str(part) for part in paths[0])
    same_key = [detail for detail, path in zip(details, paths, strict=True) if path == paths[0]]
    n_others = len(set(paths)) - 1
    more = f" (and {n_others} more)" if n_others else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        nearest = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        fix = f"did you mean `{nearest[0]}`?" if nearest else f"known here: {', '.join(known)}"
        return ConfigError(f"unknown key `{key}`{more}", where=where, fix=fix)
    found = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
    # a value that may have several types gives an error per type: the one of the type that it has says most
    most_specific = [detail for detail in same_key if not detail["type"].endswith(_WRONG_TYPE_SUFFIXES)] or same_key
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in most_specific))
    return ConfigError(
        f"`{key}` is wrong{more}" if key else f"wrong{more}", where=where, found=found, expected=expected
    )


def _key_path(model: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the keys of a pydantic error location, without the type names that pydantic adds for a union."""
    annotation = model
    for depth, part in enumerate(location):
        types = [member for member in _union_members(annotation) if member is not type(None)]
        if len(types) != 1:
            return location[:depth]
        if isinstance(types[0], type) and issubclass(types[0], BaseModel):
            fields = types[0].model_fields.items()
            annotation = next((field.annotation for name, field in fields if part in (name, field.alias)), None)
        else:
            annotation = next(reversed(get_args(types[0])), None)
    return location


def _union_members(annotation: Any) -> list[Any]:
    """Return the types that a value may have, without their `Annotated` metadata."""
    if get_origin(annotation) is Annotated:
        return _union_members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for member in get_args(annotation) for inner in _union_members(member)]
    return [annotation]


_EXPECTED_BY_TYPE = {
    "missing": "a value",
    "model_type": "a mapping of settings",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "bool_parsing": "true or false",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
}
"""Plain descriptions of what was expected, by pydantic's error type, in place of messages that are written for programmers."""
_WRONG_TYPE_SUFFIXES = ("_type", "_parsing", "literal_error")
"""Endings of pydantic's error types for a value of the wrong type."""


def _expected(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] in _EXPECTED_BY_TYPE:
        return _EXPECTED_BY_TYPE[detail["type"]].format(**context)
    message = re.sub(r"^(Value error, |Input should be )", "", detail["msg"])
    return message[:1].lower() + message[1:]


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that a model knows at a location such as ("gates", "floor")."""
    for part in (part for part in location if isinstance(part, str)):  # skip the positions in lists
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        types = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return [f.alias or name for name, f in model.model_fields.items()]

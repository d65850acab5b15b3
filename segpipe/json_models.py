"""Reading JSON files as pydantic models, and one line that says what is wrong with one that does not fit."""

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
        model: the type that its content must fit.
        error_type: what is raised where it does not fit.
        kind: what the file should be, such as "selection"; the error then begins with "is not a valid selection".
        fix: what the user can do about it; by default the nearest known key, where a key is unknown.
        max_bytes: a larger file is refused before it is read.

    Raises:
        DataError: the file cannot be read, is too large or is not JSON.
        SegpipeError: of `error_type`, naming the first key that does not fit.
    """
    content = read_json(path, max_bytes)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = validation_error(error, path, model)
        what = f"is not a valid {kind}: {first.what}" if kind else first.what
        raise error_type(what, where=path, found=first.found, expected=first.expected, fix=fix or first.fix) from error


def validation_error(error: ValidationError, where: str | Path, model: type[BaseModel]) -> ConfigError:
    """The first complaint of pydantic as one line: the key, the value found, what was expected, the nearest known key."""
    complaints = error.errors()
    first, place = complaints[0], _place(model, complaints[0]["loc"])
    of_it = [complaint for complaint in complaints if _place(model, complaint["loc"]) == place]
    key = ".".join(str(part) for part in place)
    others = len({_place(model, complaint["loc"]) for complaint in complaints}) - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        return ConfigError(f"unknown key `{key}`{more}", where=where, fix=fix)
    found = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
    nearest = [c for c in of_it if not c["type"].endswith(_OF_ANOTHER_TYPE)] or of_it
    expected = " or ".join(dict.fromkeys(_expected(complaint) for complaint in nearest))
    return ConfigError(
        f"`{key}` is wrong{more}" if key else f"wrong{more}", where=where, found=found, expected=expected
    )


def _place(model: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The keys of a complaint; what pydantic adds for each type that a value might have had is left out."""
    kind = model
    for depth, part in enumerate(location):
        kinds = [k for k in _alternatives(kind) if k is not type(None)]
        if len(kinds) != 1:
            return location[:depth]
        if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
            fields = kinds[0].model_fields.items()
            kind = next((field.annotation for name, field in fields if part in (name, field.alias)), None)
        else:
            kind = next(reversed(get_args(kinds[0])), None)
    return location


def _alternatives(kind: Any) -> list[Any]:
    """The types that a value may have, without what is annotated to them."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [inner for member in get_args(kind) for inner in _alternatives(member)]
    return [kind]


_WORDS = {
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
"""What pydantic expected, where its own words are for programmers."""
_OF_ANOTHER_TYPE = ("_type", "_parsing", "literal_error")
"""How its names for complaints end where a value is of another type. Where it might have had one of several and is of one, what is wrong
with it as that one says more."""


def _expected(complaint: ErrorDetails) -> str:
    context = complaint.get("ctx", {})
    if complaint["type"] in _WORDS:
        return _WORDS[complaint["type"]].format(**context)
    message = re.sub(r"^(Value error, |Input should be )", "", complaint["msg"])
    return message[:1].lower() + message[1:]


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that a model knows at a place such as ("gates", "floor")."""
    for part in (part for part in location if isinstance(part, str)):  # places in a list are passed over
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        types = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return [f.alias or name for name, f in model.model_fields.items()]

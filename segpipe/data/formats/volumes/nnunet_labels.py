"""The `labels` of a dataset.json: of nnU-Net v2 {name: value, or list of values}, of the Decathlon {"value": name}."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from segpipe.errors import DataError
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

_FIX = "correct `labels`"
_IGNORE = "ignore"


def read_labels(labels: Any, where: str, notes: list[str]) -> ClassTable:
    """The class table. nnU-Net's label `ignore` counts nowhere. Its regions (names with several values) may hold each other; files
    store plain values, so each value becomes a class of its own, named by the regions that hold it ("whole tumour, core").

    Raises DataError for anything else.
    """
    if not isinstance(labels, dict) or not labels:
        raise DataError(
            "no labels", where=where, found=labels, expected='labels: {"background": 0, "cell": 1}', fix=_FIX
        )
    if all(key.isdigit() and isinstance(name, str) for key, name in labels.items()):
        values = {name: [_value(key, where)] for key, name in labels.items()}
        if len(values) < len(labels):
            raise DataError("two labels of one name", where=where, found=", ".join(labels.values()), fix=_FIX)
    else:
        values = {name: _values(value, where, name) for name, value in labels.items()}
    ignored = values.pop(_IGNORE, [])
    by_value: dict[int, list[str]] = {}
    for name, held in values.items():
        for value in held:
            by_value.setdefault(value, []).append(name)
    if any(len(held) > 1 for held in values.values()):
        notes.append(
            "labels are regions, which may hold each other: each value is a class of its own, named by its regions"
        )
    elif doubled := [names for names in by_value.values() if len(names) > 1]:
        raise DataError("two labels of one value", where=where, found=" and ".join(doubled[0]), fix=_FIX)
    return _table({value: ", ".join(names) for value, names in sorted(by_value.items())}, ignored, where)


def _table(names: dict[int, str], ignored: list[int], where: str) -> ClassTable:
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            "labels that make no table", where=where, found=f"{len(names)} values", expected="2 to 250", fix=_FIX
        )
    try:
        specs = tuple(
            ClassSpec(name=name, value=value, color=default_color(i)) for i, (value, name) in enumerate(names.items())
        )
        return ClassTable(classes=specs, ignore=tuple(ignored))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"labels that make no table: {reason}", where=where, fix=_FIX) from error


def _values(value: Any, where: str, name: str) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise DataError("a label without a value", where=where, found=name, fix=_FIX)
    return [_value(one, where) for one in listed]


def _value(value: Any, where: str) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6 else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 65535:
        raise DataError(
            "a label's value is no class value",
            where=where,
            found=str(value)[:40],
            expected="a whole number from 0 to 65535",
            fix=_FIX,
        )
    return number

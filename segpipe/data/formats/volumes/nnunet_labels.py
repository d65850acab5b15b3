"""The `labels` of a dataset.json: {name: value, or list of values} in nnU-Net v2, {"value": name} in the Decathlon."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from segpipe.errors import DataError
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

_FIX = "correct `labels`"
_IGNORE_NAME = "ignore"


def read_labels(labels: Any, where: str, notes: list[str]) -> ClassTable:
    """Return the class table. nnU-Net's label `ignore` becomes the ignored value.

    Regions of nnU-Net (names with several values) may contain each other. Label files store plain values, so each value becomes a
    class of its own, named after the regions that contain it ("whole tumour, core").

    Args:
        labels: `labels` of the file.
        where: the file, for errors.
        notes: gets a sentence for the user if there are regions.

    Raises:
        DataError: `labels` is anything else.
    """
    if not isinstance(labels, dict) or not labels:
        raise DataError(
            "no labels", where=where, found=labels, expected='labels: {"background": 0, "cell": 1}', fix=_FIX
        )
    if all(key.isdigit() and isinstance(name, str) for key, name in labels.items()):
        values = {name: [_parse_value(key, where)] for key, name in labels.items()}
        if len(values) < len(labels):
            raise DataError("two labels with the same name", where=where, found=", ".join(labels.values()), fix=_FIX)
    else:
        values = {name: _parse_values(value, where, name) for name, value in labels.items()}
    ignored = values.pop(_IGNORE_NAME, [])
    names_by_value: dict[int, list[str]] = {}
    for name, region in values.items():
        for value in region:
            names_by_value.setdefault(value, []).append(name)
    if any(len(region) > 1 for region in values.values()):
        notes.append("labels are regions, which may contain each other: each value is a class, named after its regions")
    elif shared := [names for names in names_by_value.values() if len(names) > 1]:
        raise DataError("two labels with the same value", where=where, found=" and ".join(shared[0]), fix=_FIX)
    return _table({value: ", ".join(names) for value, names in sorted(names_by_value.items())}, ignored, where)


def _table(names: dict[int, str], ignored: list[int], where: str) -> ClassTable:
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            "labels that are not a valid class table",
            where=where,
            found=f"{len(names)} values",
            expected=f"2 to {MAX_CLASSES}",
            fix=_FIX,
        )
    try:
        specs = tuple(
            ClassSpec(name=name, value=value, color=default_color(i)) for i, (value, name) in enumerate(names.items())
        )
        return ClassTable(classes=specs, ignore=tuple(ignored))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"labels that are not a valid class table: {reason}", where=where, fix=_FIX) from error


def _parse_values(raw: Any, where: str, name: str) -> list[int]:
    listed = raw if isinstance(raw, list) else [raw]
    if not listed:
        raise DataError("a label without a value", where=where, found=name, fix=_FIX)
    return [_parse_value(value, where) for value in listed]


def _parse_value(raw: Any, where: str) -> int:
    value = int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < 6 else raw
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise DataError(
            "a label whose value is not a class value",
            where=where,
            found=str(raw)[:40],
            expected="a whole number from 0 to 65535",
            fix=_FIX,
        )
    return value

"""Descriptions of mask values that are not in the class table, and of their usual causes."""

from __future__ import annotations

from itertools import pairwise

from segpipe.samples import ClassTable
from segpipe.words import counted, listed, plural

_MAX_EDGE_OFFSET = 8
"""The largest difference from the value of a class at which an unknown value is taken for a smoothed edge of it."""


def describe_unknown_values(values: dict[str, int]) -> str:
    """Describe unknown values, {value in the file: pixels}, the most frequent first."""
    ordered = sorted(values.items(), key=lambda pair: -pair[1])
    shown = listed(f"{value} ({counted(count, 'pixel')})" for value, count in ordered)
    return f"unknown {plural(len(ordered), 'value')} {shown}"


def suggest_fix(values: dict[str, int], all_unknown: set[int], table: ClassTable) -> str:
    """Suggest what to do about the unknown values of a mask.

    Args:
        values: {value in the file: pixels} of the mask.
        all_unknown: the unknown values of all masks of the dataset.
        table: the classes.
    """
    n_classes, unknown = len(table), {int(value) for value in values}
    known = sorted(spec.value for spec in table.classes)
    names = {spec.value: spec.name for spec in table.classes}
    if known == list(range(n_classes)) and all_unknown == {n_classes}:
        return (
            f"masks seem to number classes from 1: set their values to 1 .. {n_classes} in dataset.yaml; or, if {n_classes} means "
            f"ignored, set `ignore: [{n_classes}]`"
        )
    if all_unknown == {255} and known == [0, 1]:
        return f"masks seem to store {names[1]} as 255: set its `value: 255` in dataset.yaml; or, if 255 means ignored, set `ignore: [255]`"
    if all_unknown == {255}:
        return "255 often means ignored: set `ignore: [255]` in dataset.yaml; if it is a class, set it as the value of that class"
    if len(unknown) > max(8, 2 * n_classes):
        return "masks seem to have been smoothed, resized or saved as JPEG: export them as PNG, without interpolation"
    nearest = {value: min(known, key=lambda k: abs(k - value)) for value in sorted(unknown)}
    close = all(abs(value - near) <= _MAX_EDGE_OFFSET for value, near in nearest.items())
    if unknown and close and _smallest_gap(known) > 2 * _MAX_EDGE_OFFSET:
        pairs = listed(f"{value} is near {near} ({names[near]})" for value, near in nearest.items())
        return (
            f"{pairs}: smoothed (anti-aliased) or lossy edges have such values; export without interpolation, or relabel these pixels, "
            f"or list the value in dataset.yaml (`ignore: [{min(unknown)}]`)"
        )
    return f"relabel these pixels, or list the value in dataset.yaml (`ignore: [{min(unknown, default=0)}]`, or as a class)"


def _smallest_gap(known: list[int]) -> int:
    """Return the smallest difference between two values of the class table."""
    return min(high - low for low, high in pairwise(known))

"""Words for mask values that the class table does not know: what they are, and by experience what they mean."""

from __future__ import annotations

from itertools import pairwise

from segpipe.samples import ClassTable

_SHOWN = 6
_NEAR = 8
"""How far a smoothed value may lie from that of its class and still be told as its edge."""


def describe_unknown_values(values: dict[str, int]) -> str:
    """{file value: pixels} as words, the most frequent first."""
    ordered = sorted(values.items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{value} ({count} pixel{'s' if count > 1 else ''})" for value, count in ordered[:_SHOWN])
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return f"unknown value{'s' if len(ordered) > 1 else ''} {shown}{more}"


def suggest_fix(values: dict[str, int], strange: set[int], table: ClassTable) -> str:
    """What to do about them. values: those of one mask; strange: all unknown values of the dataset."""
    n_classes, found = len(table), {int(value) for value in values}
    known = sorted(spec.value for spec in table.classes)
    names = {spec.value: spec.name for spec in table.classes}
    if known == list(range(n_classes)) and strange == {n_classes}:
        return (
            f"masks seem to count classes from 1: set value 1 to {n_classes} in dataset.yaml; or {n_classes} means ignored: "
            f"`ignore: [{n_classes}]`"
        )
    if strange == {255} and known == [0, 1]:
        return f"masks seem to store {names[1]} as 255: give it `value: 255` in dataset.yaml; or, where 255 means ignored, `ignore: [255]`"
    if strange == {255}:
        return (
            "255 often means ignored: `ignore: [255]` in dataset.yaml; if it is a class, give it as that class's value"
        )
    if len(found) > max(8, 2 * n_classes):
        return "masks seem to have been smoothed, resized or saved as JPEG: export them as PNG, without interpolation"
    nearest = {value: min(known, key=lambda k: abs(k - value)) for value in sorted(found)}
    if found and all(abs(value - near) <= _NEAR for value, near in nearest.items()) and _spread(known) > 2 * _NEAR:
        meant = ", ".join(
            f"{value} lies beside {near} ({names[near]})" for value, near in list(nearest.items())[:_SHOWN]
        )
        return (
            f"{meant}: as smoothed (anti-aliased) or lossy edges do; export without interpolation, or paint these pixels over, "
            f"or list the value in dataset.yaml (`ignore: [{min(found)}]`)"
        )
    return f"paint over these pixels, or list the value in dataset.yaml (`ignore: [{min(found, default=0)}]`, or as a class)"


def _spread(known: list[int]) -> int:
    """The least distance between two values of the class table."""
    return min(high - low for low, high in pairwise(known))

"""Which classes a source has: said by the user, written in the source, or guessed from the pixel values of its masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.describe import histogram
from segpipe.data.images import read_mask
from segpipe.errors import ConfigError, DataError
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

MASKS_READ = 200
"""At most so many masks, evenly spread, are read for their values; validation looks at all of them."""

_OBJECTS_ABOVE = 32
"""Consecutive values beyond this number, of another length in every mask, are numbers of objects."""

_STRAY_PIXELS, _STRAY_MASKS = 1e-4, 0.05
"""A value with no more than these shares of all pixels and of all masks is a slip of the brush, no class of its own."""


@dataclass(frozen=True)
class FoundClasses:
    """The classes of a source, where they come from, and whether its masks hold numbers of objects instead of classes."""

    table: ClassTable
    origin: str
    objects: bool = False


def is_background(name: str) -> bool:
    """Whether a class of this name is what is left when nothing else is there; it is drawn clear and never missed."""
    return name.strip().lower() in {"background", "bg", "_background_", "other", "none", "void"}


def find_classes(
    masks: list[Path], written: ClassTable | None, names: list[str] | None, ignore: list[int], limits: DataParams
) -> FoundClasses:
    """The class table of a source: `names` (with values 0, 1, 2 ... or, where their number fits, the values found), else the
    table `written` in the source, else one class for each value found. Raises ConfigError or DataError with what was found.
    """
    if written is not None and names is None:
        table = ClassTable(classes=written.classes, ignore=tuple(ignore) or written.ignore)
        return FoundClasses(table, "dataset.yaml")
    read = _read_values(masks, limits)
    objects = _are_objects(read)
    if objects and (names is None or len(names) == 2):
        origin = "masks hold numbers of objects"
        return FoundClasses(_table(names or ["background", "object"], [0, 1], ignore), origin, objects=True)
    found = _without_strays(read, ignore)
    if names is not None:
        return FoundClasses(_named(names, found, ignore), "as given")
    if not 2 <= len(found) <= MAX_CLASSES:
        raise DataError(
            "the classes cannot be guessed from the masks", found=f"pixel values {_words(found)}",
            expected=f"2 to {MAX_CLASSES} values", fix='name them: --classes "background,cell"',
        )  # fmt: skip
    guessed = ["background" if value == 0 else f"class {value}" for value in found]
    if found == [0, 255]:
        guessed = ["background", "foreground"]
    share = "all masks" if len(read) == len(masks) else f"{len(read)} of {len(masks)} masks"
    return FoundClasses(_table(guessed, found, ignore), f"guessed from the values in {share}")


def _named(names: list[str], found: list[int], ignore: list[int]) -> ClassTable:
    if all(value < len(names) for value in found) and not set(ignore) & set(range(len(names))):
        return _table(names, list(range(len(names))), ignore)
    if len(found) == len(names):
        return _table(names, found, ignore)
    raise ConfigError(
        "the masks do not fit the classes given", found=f"{len(names)} names, pixel values {_words(found)}",
        expected="a name for each value", fix="give as many names as values (--classes), or ignore some (--ignore 255)",
    )  # fmt: skip


def _table(names: list[str], values: list[int], ignore: list[int]) -> ClassTable:
    """Black, which is drawn clear, is kept for a background."""
    shift = 0 if is_background(names[0]) else 1
    specs = tuple(
        ClassSpec(name=name, value=value, color=default_color(index + shift))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    )
    try:
        return ClassTable(classes=specs, ignore=tuple(ignore))
    except ValueError as error:
        raise ConfigError(
            "the classes given make no table",
            found=", ".join(names),
            expected="different names and values, two at least",
        ) from error


def _read_values(masks: list[Path], limits: DataParams) -> list[Counter[int]]:
    """Pixels by value of each mask that can be read, out of at most `MASKS_READ`."""
    step = max(1, -(-len(masks) // MASKS_READ))
    read, first_error = [], None
    for path in masks[::step]:
        try:
            counts = histogram(read_mask(path, limits))
            read.append(Counter({int(value): int(counts[value]) for value in np.flatnonzero(counts)}))
        except DataError as error:  # the manifest will tell of each; here the others say enough
            first_error = first_error or error
    if not read:
        raise first_error or DataError("no masks to learn the classes from", fix="give images with masks")
    return read


def _without_strays(read: list[Counter[int]], ignore: list[int]) -> list[int]:
    """The values found, in order, without those of a few pixels in a few masks, which validation will name."""
    pixels: Counter[int] = sum(read, Counter())
    masks = Counter(value for counts in read for value in counts)
    few, rare = _STRAY_PIXELS * pixels.total(), _STRAY_MASKS * len(read)
    return sorted(value for value in pixels if value not in ignore and (pixels[value] > few or masks[value] > rare))


def _are_objects(read: list[Counter[int]]) -> bool:
    """Whether masks hold object numbers: each has 0, 1 ... k without gaps, with many different k and a large one."""
    counts = {len(values) for values in read}
    without_gaps = all(sorted(values) == list(range(len(values))) for values in read)
    return without_gaps and len(counts) > min(3, len(read) - 1) and max(counts) > _OBJECTS_ABOVE


def _words(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:12]))
    return f"{shown} and {len(values) - 12} more" if len(values) > 12 else shown

"""Which classes a source has: said by the user, written in the source, or guessed from the pixel values of its masks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.images import VOLUME_SUFFIXES, read_mask, suffix_of
from segpipe.data.images.statistics import flat_rows, histogram
from segpipe.errors import ConfigError, DataError
from segpipe.labels import MAX_OVERLAPPING_CLASSES
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

MAX_MASKS_READ = 200
"""At most so many masks, evenly spread, are read for their values; validation looks at all of them."""

_ALL_ONES = (255, 65535)
"""No set of so few classes; by custom what counts nowhere."""

_OBJECTS_ABOVE = 32
"""Consecutive values beyond this number, of another length in every mask, are numbers of objects."""

_STRAY_PIXELS, _STRAY_MASKS = 1e-4, 0.05
"""A value with no more than these shares of all pixels and of all masks is a slip of the brush, no class of its own."""


@dataclass(frozen=True)
class SourceClasses:
    """The classes of a source, where they come from, and whether its masks hold numbers of objects instead of classes."""

    table: ClassTable
    origin: str
    objects: bool = False


def is_background(name: str) -> bool:
    """Whether a class of this name is what is left when nothing else is there; it is drawn clear and never missed."""
    return name.strip().lower() in {"background", "bg", "_background_", "other", "none", "void"}


def find_classes(
    masks: list[Path], written: SourceClasses | None, names: list[str] | None, ignore: list[int], limits: DataParams,
    overlapping: bool = False,
) -> SourceClasses:
    """The class table of a source, from what the user says (`names`, each a name or ``name=value``), from the table `written` in
    the source, or from the values found in its `masks`, in this order. `masks` is empty where labels are drawn by `written`.

    Plain names stand for the values 0, 1, 2 ... or, where their number fits, for the values found. Raises ConfigError or DataError
    with what was found. overlapping: the values are sums of bits, one for each class, and plain names stand for the lowest bits.
    """
    if overlapping and written is not None and not written.table.overlapping:
        raise ConfigError(
            "the class table of the source says that classes exclude each other", where=written.origin,
            fix="leave --overlapping out; or, where its masks are sums of bits (1, 2, 4 ...), write `overlapping: true` into it",
        )
    if names is None and written is not None:
        return SourceClasses(_ignoring(written.table, ignore), written.origin)
    values = _values_given(names) if names is not None else None
    if not masks:
        assert written is not None, "a layout whose labels are drawn brings its class table"
        assert names is not None
        return SourceClasses(_renamed(written.table, names, values, ignore), "named as given")
    read = read_value_counts(masks, limits)
    if overlapping:
        return _find_sets(names, values, read, ignore)
    if values is not None:
        return SourceClasses(_with_values(values, _without_strays(read, ignore), ignore), "as given")
    objects = are_instance_ids(read) and not any(suffix_of(mask) in VOLUME_SUFFIXES for mask in masks)
    if objects and (names is None or len(names) == 2):
        origin = "masks hold numbers of objects"
        return SourceClasses(_table(names or ["background", "object"], [0, 1], ignore), origin, objects=True)
    found = _without_strays(read, ignore)
    if names is not None:
        return SourceClasses(_named(names, found, ignore), "as given")
    if not 2 <= len(found) <= MAX_CLASSES:
        raise DataError(
            "the classes cannot be guessed from the masks", found=f"pixel values {_words(found)}",
            expected=f"2 to {MAX_CLASSES} values", fix='name them: --classes "background,cell"',
        )
    guessed = ["background" if value == 0 else f"class {value}" for value in found]
    if found == [0, 255]:
        guessed = ["background", "foreground"]
    share = "all masks" if len(read) == len(masks) else f"{len(read)} of {len(masks)} masks"
    return SourceClasses(_table(guessed, found, ignore), f"guessed from the values in {share}")


def overlapping_table(names: list[str], values: list[int] | None = None, ignore: Sequence[int] = ()) -> ClassTable:
    """A table of overlapping classes: a background, which need not be named, then `names`, whose bits are 1, 2, 4 ... unless
    `values` says otherwise. `ignore`: values that count nowhere; 255 where there are none. ConfigError where it is no table."""
    named, stand_for = names, values or [0] * is_background(names[0]) + [1 << k for k in range(len(names))]
    if 0 not in stand_for[: len(named)]:
        named, stand_for = ["background", *named], [0, *stand_for]
    return _table(named, stand_for[: len(named)], list(ignore) or [_ALL_ONES[0]], overlapping=True)


def _find_sets(
    names: list[str] | None, values: dict[str, int] | None, read: list[Counter[int]], ignore: list[int]
) -> SourceClasses:
    """The table of masks whose values are sets of classes; each bit that is found has to have a name."""
    ones = [value for value in _ALL_ONES if value not in ignore and any(value in counts for counts in read)]
    found = _without_strays(read, [*ignore, *ones])
    there = [1 << k for k in range(16) if any(value >> k & 1 for value in found)]
    chosen = names or [f"class {bit}" for bit in there]
    if not chosen:
        raise DataError(
            "the masks hold no class", found=f"pixel values {_words(found)}", expected="sums of bits: 1, 2, 4 ..."
        )
    if values is not None:
        chosen = list(values)
    table = overlapping_table(chosen, list(values.values()) if values else None if names else there, [*ignore, *ones])
    if nameless := set(there) - {spec.value for spec in table.classes}:
        raise ConfigError(
            "the masks hold bits without a name", found=f"pixel values {_words(found)}",
            expected=f"sums of {', '.join(f'{spec.value} ({spec.name})' for spec in table.classes[1:])}",
            fix=f"name all of them (--classes): {_words(sorted(nameless))}; or import without --overlapping, "
            "where each value is a class",
        )
    return SourceClasses(table, "as given" if names else "guessed from the bits in the masks")


def _values_given(names: list[str]) -> dict[str, int] | None:
    """{name: value} where every name brings its value, None where none does."""
    matches = [re.fullmatch(r"(.+?)\s*=\s*(\d{1,5})", name) for name in names]
    if not any(matches):
        return None
    if not all(matches) or len({match[1] for match in matches if match}) < len(names):
        raise ConfigError(
            "values are given for some classes only, or twice", found=", ".join(names),
            expected="different names, each with a value or none with one", fix='--classes "cell=255,membrane=0"',
        )
    return {match[1]: int(match[2]) for match in matches if match}


def _with_values(values: dict[str, int], found: list[int], ignore: list[int]) -> ClassTable:
    nameless = [value for value in found if value not in values.values()]
    if nameless:
        raise ConfigError(
            "the masks hold values without a name", found=f"pixel values {_words(found)}",
            expected=f"only {_words(sorted([*values.values(), *ignore]))}",
            fix=f"name them (--classes), or ignore them (--ignore {','.join(map(str, nameless[:12]))})",
        )
    return _table(list(values), list(values.values()), ignore)


def _ignoring(table: ClassTable, ignore: list[int]) -> ClassTable:
    """The table of a source with the values that the user ignores, which are classes no more."""
    if not ignore:
        return table
    kept = tuple(spec for spec in table.classes if spec.value not in ignore)
    return _checked(kept, (*table.ignore, *(value for value in ignore if value not in table.ignore)), table.overlapping)


def _renamed(table: ClassTable, names: list[str], values: dict[str, int] | None, ignore: list[int]) -> ClassTable:
    """The user's names for a table whose values are fixed: one for each class, one for each but the background, or the first few."""
    table = _ignoring(table, ignore)
    by_value = {spec.value: spec for spec in table.classes}
    if values is None:
        background = table.classes[0]
        if len(names) == len(table) - 1 and is_background(background.name) and not is_background(names[0]):
            names = [background.name, *names]
        values = {name: spec.value for name, spec in zip(names, table.classes, strict=False)}
    if len(values) < len(names) or not by_value.keys() >= set(values.values()):
        raise ConfigError(
            "the names do not fit the classes of the source", found=", ".join(names),
            expected=", ".join(f"{spec.name}={spec.value}" for spec in table.classes), fix="name these (--classes)",
        )
    specs = tuple(by_value[value].model_copy(update={"name": name}) for name, value in values.items())
    return _checked(specs, table.ignore, table.overlapping)


def _named(names: list[str], found: list[int], ignore: list[int]) -> ClassTable:
    if all(value < len(names) for value in found) and not set(ignore) & set(range(len(names))):
        return _table(names, list(range(len(names))), ignore)
    if len(found) == len(names):
        return _table(names, found, ignore)
    raise ConfigError(
        "the masks do not fit the classes given", found=f"{len(names)} names, pixel values {_words(found)}",
        expected="a name for each value", fix="give as many names as values (--classes), or ignore some (--ignore 255)",
    )


def _table(names: list[str], values: list[int], ignore: list[int], overlapping: bool = False) -> ClassTable:
    """Black, which is drawn clear, is kept for a background."""
    shift = 0 if is_background(names[0]) else 1
    specs = [
        (name, value, default_color(index + shift))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    return _checked(
        tuple(ClassSpec.model_construct(name=n, value=v, color=c) for n, v, c in specs), tuple(ignore), overlapping
    )


def _checked(specs: tuple[ClassSpec, ...], ignore: tuple[int, ...], overlapping: bool = False) -> ClassTable:
    try:
        return ClassTable.model_validate(
            {"classes": [spec.model_dump() for spec in specs], "ignore": ignore, "overlapping": overlapping}
        )
    except ValueError as error:
        if overlapping:
            raise ConfigError(
                "the classes given make no table of overlapping ones", found=", ".join(f"{s.name}={s.value}" for s in specs),
                expected=f"a background of value 0, and at most {MAX_OVERLAPPING_CLASSES - 1} different names and bits (1, 2, 4 ...)",
            ) from error
        raise ConfigError(
            "the classes given make no table", found=", ".join(f"{spec.name}={spec.value}" for spec in specs),
            expected="different names and values, from 0 to 65535, two classes at least",
        ) from error


def read_value_counts(masks: list[Path], limits: DataParams) -> list[Counter[int]]:
    """Pixels by value of each mask that can be read, out of at most `MASKS_READ`; DataError where none can be."""
    step = max(1, -(-len(masks) // MAX_MASKS_READ))
    read, first_error = [], None
    for path in masks[::step]:
        try:
            counts = histogram(flat_rows(read_mask(path, limits), labels=True))
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


def are_instance_ids(read: list[Counter[int]]) -> bool:
    """Whether masks hold object numbers: each has 0, 1 ... k without gaps, with many different k and a large one."""
    counts = {len(values) for values in read}
    without_gaps = all(sorted(values) == list(range(len(values))) for values in read)
    return without_gaps and len(counts) > min(3, len(read) - 1) and max(counts) > _OBJECTS_ABOVE


def _words(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:12]))
    return f"{shown} and {len(values) - 12} more" if len(values) > 12 else shown

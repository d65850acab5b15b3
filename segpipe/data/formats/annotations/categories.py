"""Convert the categories of an annotation file to the class table of a dataset."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from segpipe.errors import DataError
from segpipe.labels import MAX_OVERLAPPING_CLASSES
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

_BACKGROUND_NAMES = ("background", "_background_")
_MAX_VALUE = 65535
_IGNORED_SET = 255
"""The ignored value of overlapping classes: no set of at most seven classes has all eight bits set."""
_RENUMBERED = "categories are renumbered"


@dataclass(frozen=True)
class Category:
    """A category as an annotation file defines it; `color` is RGB 0..255, None if the file has none; `parent` is its supercategory."""

    id: int
    name: str
    color: tuple[int, int, int] | None = None
    parent: str | None = None


@dataclass(frozen=True)
class Numbering:
    """The file values of the categories.

    classes: the class table.
    values: the file value of each category id.
    ignore: the file value of ignored pixels.
    background: the file value of pixels that no annotation covers.
    notes: sentences for the user.
    """

    classes: ClassTable
    values: dict[int, int]
    ignore: int
    background: int = 0
    notes: tuple[str, ...] = ()


def number_classes(categories: Iterable[Category], ignored: bool, where: Path) -> Numbering:
    """Number the categories: background 0, then each category with its id as its value if the ids allow that.

    Args:
        categories: the categories; those with the same name become one class, and one named background is the background.
        ignored: whether some pixels are ignored.
        where: the annotation file, for errors.

    Raises:
        DataError: there are too few or too many categories.
    """
    by_name: dict[str, list[Category]] = {}
    background_name = "background"
    backgrounds = []
    for category in sorted(categories, key=lambda category: category.id):
        if is_background_category(category.name):
            background_name = category.name
            backgrounds.append(category)
        else:
            by_name.setdefault(category.name, []).append(category)
    if not 1 <= len(by_name) < MAX_CLASSES:
        raise DataError(
            "too few or too many categories",
            where=where,
            found=len(by_name),
            expected=f"1 to {MAX_CLASSES - 1}",
            fix="keep only the categories to be learned",
        )
    firsts = [same_name[0] for same_name in by_name.values()]
    ids = [category.id for category in firsts]
    shift = 1 if min(ids) == 0 else 0
    ids_are_values = min(ids) >= 0 and max(ids) + shift < _MAX_VALUE
    numbers = [number + shift for number in ids] if ids_are_values else list(range(1, len(ids) + 1))
    used = set(numbers)
    ignore = next(value for value in (255, *range(_MAX_VALUE, 0, -1)) if value not in used)
    background_color = backgrounds[0].color if backgrounds else None
    specs = [ClassSpec(name=background_name, value=0, color=background_color or default_color(0))]
    specs += [
        ClassSpec(name=category.name, value=number, color=category.color or default_color(rank))
        for rank, (category, number) in enumerate(zip(firsts, numbers, strict=True), start=1)
    ]
    values = {category.id: 0 for category in backgrounds}
    values |= {c.id: spec.value for spec in specs[1:] for c in by_name[spec.name]}
    repeated = [name for name, same_name in by_name.items() if len(same_name) > 1]
    notes = [f"categories with the same name are one class: {', '.join(repeated)}"] if repeated else []
    notes += [] if ids_are_values and not shift else [f"{_RENUMBERED}: {ids[0]} becomes {numbers[0]}, and so on"]
    return Numbering(
        ClassTable(classes=tuple(specs), ignore=(ignore,) if ignored else ()), values, ignore, notes=tuple(notes)
    )


def as_overlapping(numbering: Numbering) -> Numbering:
    """Return the same classes as overlapping ones: their file values are bits, in their order.

    Raises:
        DataError: there are more classes than can overlap.
    """
    if numbering.classes.overlapping:
        return numbering
    background, *others = numbering.classes.classes
    bits = {spec.value: 1 << k for k, spec in enumerate(others)}
    try:
        table = ClassTable(
            classes=(background, *(spec.model_copy(update={"value": bits[spec.value]}) for spec in others)),
            ignore=(_IGNORED_SET,),
            overlapping=True,
        )
    except ValueError as error:
        raise DataError(
            "too many classes to overlap",
            found=len(others),
            expected=f"at most {MAX_OVERLAPPING_CLASSES - 1}",
            fix="keep only the categories to be learned, or import without --overlapping",
        ) from error
    values = {category: bits.get(value, 0) for category, value in numbering.values.items()}
    notes = [note for note in numbering.notes if not note.startswith(_RENUMBERED)]
    return Numbering(table, values, _IGNORED_SET, notes=(*notes, "classes may overlap: their values are bits"))


def without_empty_parent(categories: Iterable[Category], used: Container[int]) -> list[Category]:
    """Return categories without the one with id 0 that Roboflow adds as the parent of all others, if no annotation has it.

    Args:
        categories: the categories of all files.
        used: the ids of categories that have annotations.
    """
    listed = list(categories)
    zero = next((category for category in listed if category.id == 0), None)
    others = [category for category in listed if category.id != 0]
    if zero is None or 0 in used or not others or any(category.parent != zero.name for category in others):
        return listed
    return others


def is_background_category(name: str) -> bool:
    """Return whether a category of this name is the background, which no annotation outlines."""
    return name.strip().lower() in _BACKGROUND_NAMES

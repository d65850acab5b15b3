"""From the categories of an annotation file to the class table of a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segpipe.errors import DataError
from segpipe.labels import MAX_OVERLAPPING_CLASSES
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

_BACKGROUNDS = ("background", "_background_")
_TOP = 65535
_IGNORED = 255
"""Of sets of classes, none of which holds all of eight bits."""


@dataclass(frozen=True)
class Category:
    """A category as a file names it; `color` is RGB 0..255, None where the file brings none."""

    id: int
    name: str
    color: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Numbering:
    """classes: the class table. values: the file value of each category id. ignore: the file value of what counts nowhere.
    ground: the file value of pixels that no object covers."""

    classes: ClassTable
    values: dict[int, int]
    ignore: int
    ground: int = 0
    notes: tuple[str, ...] = ()


def as_overlapping(numbering: Numbering) -> Numbering:
    """The same classes, which may overlap now: their values are bits, in their order."""
    if numbering.classes.overlapping:
        return numbering
    ground, *others = numbering.classes.classes
    bits = {spec.value: 1 << k for k, spec in enumerate(others)}
    try:
        table = ClassTable(
            classes=(ground, *(spec.model_copy(update={"value": bits[spec.value]}) for spec in others)),
            ignore=(_IGNORED,), overlapping=True,
        )
    except ValueError as error:
        raise DataError(
            "too many classes to overlap", found=len(others), expected=f"at most {MAX_OVERLAPPING_CLASSES - 1}",
            fix="keep the categories that are to be learned, or import without --overlapping",
        ) from error
    values = {category: bits.get(value, 0) for category, value in numbering.values.items()}
    notes = [note for note in numbering.notes if "anew" not in note]
    return Numbering(table, values, _IGNORED, notes=(*notes, "classes may overlap: their values are bits"))


def is_background_category(name: str) -> bool:
    """Whether a category of this name is the background itself, drawn by no object."""
    return name.strip().lower() in _BACKGROUNDS


def number_classes(categories: Iterable[Category], ignored: bool, where: Path) -> Numbering:
    """Background 0 first, then each category, its id as its value where ids allow that. `ignored`: some pixels count nowhere.

    Categories of one name are one class; one that is named background is the background. Raises DataError where that makes no table.
    """
    by_name: dict[str, list[Category]] = {}
    background = "background"
    grounds = []
    for category in sorted(categories, key=lambda category: category.id):
        if is_background_category(category.name):
            background = category.name
            grounds.append(category)
        else:
            by_name.setdefault(category.name, []).append(category)
    if not 1 <= len(by_name) < MAX_CLASSES:
        raise DataError(
            "too few or too many categories", where=where, found=len(by_name), expected=f"1 to {MAX_CLASSES - 1}",
            fix="keep the categories that are to be learned",
        )
    firsts = [same[0] for same in by_name.values()]
    ids = [category.id for category in firsts]
    shift = 1 if min(ids) == 0 else 0
    own = min(ids) >= 0 and max(ids) + shift < _TOP
    numbers = [number + shift for number in ids] if own else list(range(1, len(ids) + 1))
    taken = set(numbers)
    ignore = next(value for value in (255, *range(_TOP, 0, -1)) if value not in taken)
    first = grounds[0].color if grounds else None
    specs = [ClassSpec(name=background, value=0, color=first or default_color(0))]
    specs += [
        ClassSpec(name=category.name, value=number, color=category.color or default_color(rank))
        for rank, (category, number) in enumerate(zip(firsts, numbers, strict=True), start=1)
    ]
    values = {category.id: 0 for category in grounds}
    values |= {c.id: spec.value for spec in specs[1:] for c in by_name[spec.name]}
    doubled = [name for name, same in by_name.items() if len(same) > 1]
    notes = [f"categories of one name are one class: {', '.join(doubled)}"] if doubled else []
    notes += [] if own and not shift else [f"categories are numbered anew: {ids[0]} is {numbers[0]}, and so on"]
    return Numbering(
        ClassTable(classes=tuple(specs), ignore=(ignore,) if ignored else ()), values, ignore, notes=tuple(notes)
    )

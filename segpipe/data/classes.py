"""The classes of a source: named by the user, written in the source, or guessed from the pixel values of its masks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.data.mask_content import MaskReader
from segpipe.errors import ConfigError, DataError
from segpipe.labels import MAX_OVERLAPPING_CLASSES
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color
from segpipe.words import listed

MAX_MASKS_READ = 200
"""At most this many masks, evenly spread, are read for their values; validation reads all of them."""

_ALL_BITS_SET = (255, 65535)
"""Values that are not a set of at most seven classes; by convention they mark ignored pixels."""

_MIN_INSTANCES = 32
"""Masks with the values 0 .. k, where k differs between masks and exceeds this number at least once, hold instance ids."""

_STRAY_PIXEL_SHARE, _STRAY_MASK_SHARE = 1e-4, 0.05
"""A value with at most these shares of all pixels and of all masks is a drawing mistake and not a class."""

_MAX_VALUES_SHOWN = 12


@dataclass(frozen=True)
class SourceClasses:
    """The classes of a source.

    table: the class table of the imported dataset.
    origin: where the table comes from, in words.
    from_instance_ids: whether the mask files hold instance ids instead of class values.
    """

    table: ClassTable
    origin: str
    from_instance_ids: bool = False


def is_background(name: str) -> bool:
    """Return whether a class name means the background, which has all pixels of no other class. It is drawn transparent."""
    return name.strip().lower() in {"background", "bg", "_background_", "other", "none", "void"}


def find_classes(
    masks: list[Path],
    written: SourceClasses | None,
    names: list[str] | None,
    ignore: list[int],
    reader: MaskReader,
    overlapping: bool = False,
) -> SourceClasses:
    """Return the classes of a source, taken from `names`, from `written` or from the values in `masks`, in this order.

    Args:
        masks: files of class values; empty if all labels are drawn with the table `written`.
        written: the class table that the source brings.
        names: the user's class names, either plain or each as ``name=value``. Plain names stand for the values 0, 1, 2 ...,
            or for the values found if their number fits.
        ignore: pixel values to ignore.
        reader: reads the mask files.
        overlapping: values are sums of bits, one bit per class; plain names then stand for the lowest bits.

    Raises:
        ConfigError: names or options do not fit the source.
        DataError: no mask can be read, or its values do not allow a guess.
    """
    if overlapping and written is not None and not written.table.overlapping:
        raise ConfigError(
            "the class table of the source says that classes do not overlap",
            where=written.origin,
            fix="omit --overlapping; or, if the masks are sums of bits (1, 2, 4 ...), add `overlapping: true` to the table",
        )
    if names is None and written is not None:
        return SourceClasses(_with_ignored(written.table, ignore), written.origin)
    named_values = _parse_named_values(names) if names is not None else None
    if not masks:
        assert written is not None, "a layout whose labels are drawn brings its class table"
        assert names is not None
        return SourceClasses(_renamed(written.table, names, named_values, ignore), "named by the user")
    counts = read_value_counts(masks, reader)
    if overlapping:
        return _find_overlapping(names, named_values, counts, ignore)
    if named_values is not None:
        return SourceClasses(_with_values(named_values, _frequent_values(counts, ignore), ignore), "named by the user")
    instance_ids = are_instance_ids(counts) and not any(suffix_of(mask) in VOLUME_SUFFIXES for mask in masks)
    if instance_ids and (names is None or len(names) == 2):
        table = _table(names or ["background", "object"], [0, 1], ignore)
        return SourceClasses(table, "masks hold instance ids", from_instance_ids=True)
    values = _frequent_values(counts, ignore)
    if names is not None:
        return SourceClasses(_named(names, values, ignore), "named by the user")
    return _guess(values, ignore, "all masks" if len(counts) == len(masks) else f"{len(counts)} of {len(masks)} masks")


def overlapping_table(names: list[str], values: list[int] | None = None, ignore: Sequence[int] = ()) -> ClassTable:
    """Return a table of overlapping classes.

    Args:
        names: class names; a background of value 0 is put first unless it is among them.
        values: the file value of each name; by default the bits 1, 2, 4 ..., and 0 for a background in the first place.
        ignore: file values to ignore; by default 255.

    Raises:
        ConfigError: names and values do not make a valid table.
    """
    table_names = names
    table_values = values or [0] * is_background(names[0]) + [1 << k for k in range(len(names))]
    if 0 not in table_values[: len(table_names)]:
        table_names, table_values = ["background", *table_names], [0, *table_values]
    return _table(table_names, table_values[: len(table_names)], list(ignore) or [_ALL_BITS_SET[0]], overlapping=True)


def read_value_counts(masks: list[Path], reader: MaskReader) -> list[Counter[int]]:
    """Return the pixel counts by value of each readable mask, out of at most `MAX_MASKS_READ` evenly spread ones.

    Raises:
        DataError: not one of them can be read.
    """
    step = max(1, -(-len(masks) // MAX_MASKS_READ))
    contents = [reader.read(path) for path in masks[::step]]
    readable = [content.counts for content in contents if content.error is None]
    if not readable:  # if only some are broken, validation reports them
        errors = [content.error for content in contents if content.error]
        raise errors[0] if errors else DataError("no masks to read the classes from", fix="provide images with masks")
    return readable


def are_instance_ids(counts: list[Counter[int]]) -> bool:
    """Return whether masks hold instance ids: each has the values 0 .. k without gaps, k differs between masks and is large."""
    value_numbers = {len(values) for values in counts}
    without_gaps = all(sorted(values) == list(range(len(values))) for values in counts)
    return without_gaps and len(value_numbers) > min(3, len(counts) - 1) and max(value_numbers) > _MIN_INSTANCES


def _guess(values: list[int], ignore: list[int], masks_read: str) -> SourceClasses:
    """Return one class per value."""
    if not 2 <= len(values) <= MAX_CLASSES:
        raise DataError(
            "the classes cannot be guessed from the masks",
            found=f"pixel values {listed(values, _MAX_VALUES_SHOWN)}",
            expected=f"2 to {MAX_CLASSES} values",
            fix='name them: --classes "background,cell"',
        )
    names = ["background" if value == 0 else f"class {value}" for value in values]
    if values == [0, 255]:
        names = ["background", "foreground"]
    return SourceClasses(_table(names, values, ignore), f"guessed from the values in {masks_read}")


def _find_overlapping(
    names: list[str] | None, named_values: dict[str, int] | None, counts: list[Counter[int]], ignore: list[int]
) -> SourceClasses:
    """Return the table of masks whose values are sets of classes. Each bit that occurs must have a name."""
    all_set = [v for v in _ALL_BITS_SET if v not in ignore and any(v in mask_counts for mask_counts in counts)]
    values = _frequent_values(counts, [*ignore, *all_set])
    bits = [1 << k for k in range(16) if any(value >> k & 1 for value in values)]
    class_names = names or [f"class {bit}" for bit in bits]
    if not class_names:
        raise DataError(
            "the masks hold no class",
            found=f"pixel values {listed(values, _MAX_VALUES_SHOWN)}",
            expected="sums of bits: 1, 2, 4 ...",
        )
    class_values = None if names else bits
    if named_values is not None:
        class_names, class_values = list(named_values), list(named_values.values())
    table = overlapping_table(class_names, class_values, [*ignore, *all_set])
    if unnamed := set(bits) - {spec.value for spec in table.classes}:
        raise ConfigError(
            "the masks hold bits without a name",
            found=f"pixel values {listed(values, _MAX_VALUES_SHOWN)}",
            expected=f"sums of {', '.join(f'{spec.value} ({spec.name})' for spec in table.classes[1:])}",
            fix=f"name all of them (--classes): {listed(sorted(unnamed), _MAX_VALUES_SHOWN)}; or import without --overlapping, "
            "so that each value is a class",
        )
    return SourceClasses(table, "named by the user" if names else "guessed from the bits in the masks")


def _parse_named_values(names: list[str]) -> dict[str, int] | None:
    """Return {name: value} if every name has the form ``name=value``, None if no name has."""
    matches = [re.fullmatch(r"(.+?)\s*=\s*(\d{1,5})", name) for name in names]
    if not any(matches):
        return None
    if not all(matches) or len({match[1] for match in matches if match}) < len(names):
        raise ConfigError(
            "only some classes have a value, or a name occurs twice",
            found=", ".join(names),
            expected="different names, all with a value or all without",
            fix='--classes "cell=255,membrane=0"',
        )
    return {match[1]: int(match[2]) for match in matches if match}


def _with_values(named_values: dict[str, int], values: list[int], ignore: list[int]) -> ClassTable:
    """Return the table of the user's names and values, if it covers all values that the masks hold."""
    unnamed = [value for value in values if value not in named_values.values()]
    if unnamed:
        few = len(unnamed) <= _MAX_VALUES_SHOWN
        ignoring = f"ignore them (--ignore {','.join(map(str, unnamed))})" if few else "ignore each of them (--ignore)"
        raise ConfigError(
            "the masks hold values without a name",
            found=f"pixel values {listed(values, _MAX_VALUES_SHOWN)}",
            expected=f"only {listed(sorted([*named_values.values(), *ignore]), _MAX_VALUES_SHOWN)}",
            fix=f"name them (--classes), or {ignoring}",
        )
    return _table(list(named_values), list(named_values.values()), ignore)


def _with_ignored(table: ClassTable, ignore: list[int]) -> ClassTable:
    """Return a table in which the values that the user ignores are no longer classes."""
    if not ignore:
        return table
    specs = tuple(spec for spec in table.classes if spec.value not in ignore)
    ignored = (*table.ignore, *(value for value in ignore if value not in table.ignore))
    return _validated(specs, ignored, table.overlapping)


def _renamed(table: ClassTable, names: list[str], named_values: dict[str, int] | None, ignore: list[int]) -> ClassTable:
    """Return a table with the user's names, whose values are fixed.

    There is one name for each class, one for each class except the background, or one for each of the first few.
    """
    table = _with_ignored(table, ignore)
    by_value = {spec.value: spec for spec in table.classes}
    if named_values is None:
        background = table.classes[0]
        if len(names) == len(table) - 1 and is_background(background.name) and not is_background(names[0]):
            names = [background.name, *names]
        named_values = {name: spec.value for name, spec in zip(names, table.classes, strict=False)}
    if len(named_values) < len(names) or not by_value.keys() >= set(named_values.values()):
        raise ConfigError(
            "the names do not fit the classes of the source",
            found=", ".join(names),
            expected=", ".join(f"{spec.name}={spec.value}" for spec in table.classes),
            fix="name these (--classes)",
        )
    specs = tuple(by_value[value].model_copy(update={"name": name}) for name, value in named_values.items())
    return _validated(specs, table.ignore, table.overlapping)


def _named(names: list[str], values: list[int], ignore: list[int]) -> ClassTable:
    """Return the table of plain names: for the values 0, 1, 2 ..., or for the values found if there are as many."""
    if all(value < len(names) for value in values) and not set(ignore) & set(range(len(names))):
        return _table(names, list(range(len(names))), ignore)
    if len(values) == len(names):
        return _table(names, values, ignore)
    raise ConfigError(
        "the masks do not fit the class names",
        found=f"{len(names)} names, pixel values {listed(values, _MAX_VALUES_SHOWN)}",
        expected="one name per value",
        fix="give as many names as values (--classes), or ignore some (--ignore 255)",
    )


def _table(names: list[str], values: list[int], ignore: list[int], overlapping: bool = False) -> ClassTable:
    """Return a table with default colours. Black, which is drawn transparent, is reserved for a background."""
    shift = 0 if is_background(names[0]) else 1
    specs = [
        (name, value, default_color(index + shift))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    return _validated(
        tuple(ClassSpec.model_construct(name=n, value=v, color=c) for n, v, c in specs), tuple(ignore), overlapping
    )


def _validated(specs: tuple[ClassSpec, ...], ignore: tuple[int, ...], overlapping: bool = False) -> ClassTable:
    """Return the table of these classes; ConfigError if it is not valid."""
    try:
        return ClassTable.model_validate(
            {"classes": [spec.model_dump() for spec in specs], "ignore": ignore, "overlapping": overlapping}
        )
    except ValueError as error:
        if overlapping:
            raise ConfigError(
                "not a valid table of overlapping classes",
                found=", ".join(f"{s.name}={s.value}" for s in specs),
                expected=f"a background of value 0, and at most {MAX_OVERLAPPING_CLASSES - 1} different names and bits (1, 2, 4 ...)",
            ) from error
        raise ConfigError(
            "not a valid class table",
            found=", ".join(f"{spec.name}={spec.value}" for spec in specs),
            expected="at least two classes with different names and different values from 0 to 65535",
        ) from error


def _frequent_values(counts: list[Counter[int]], ignore: list[int]) -> list[int]:
    """Return the values in the masks, in order, without those of a few pixels in a few masks: validation reports these."""
    pixels: Counter[int] = sum(counts, Counter())
    masks = Counter(value for mask_counts in counts for value in mask_counts)
    max_pixels, max_masks = _STRAY_PIXEL_SHARE * pixels.total(), _STRAY_MASK_SHARE * len(counts)
    return sorted(
        value for value in pixels if value not in ignore and (pixels[value] > max_pixels or masks[value] > max_masks)
    )

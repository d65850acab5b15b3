"""The three lists of a COCO annotation file. Each entry is checked; broken ones are left out with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from segpipe.data.formats.annotations.categories import Category
from segpipe.data.formats.annotations.coco_units import UNIT_SIZES, Unit, find_unit, flat_outlines
from segpipe.data.formats.annotations.painter import CLIPPED, INCOMPLETE, Annotation
from segpipe.data.formats.annotations.shapes import Polygons, Shape, parse_polygon, parse_runs, reaches_out
from segpipe.errors import DataError

CROWDS = "crowd annotations (iscrowd 1), whose pixels are ignored"
SCALED: dict[Unit, str] = {
    "fractions": "polygons in fractions of the image, scaled to pixels",
    "percent": "polygons in percent of the image, as the boxes beside them show, scaled to pixels",
}
_MAX_EDGE_PIXELS = 1 << 20
_MAX_ID_DIGITS = 18


SizeOf = Callable[[str], tuple[int, int]]


@dataclass(frozen=True)
class ImageEntry:
    """An image of an annotation file, with its annotations. `size` is (height, width) in pixels."""

    file_name: str
    size: tuple[int, int]
    group: str | None
    annotations: list[Annotation] = field(default_factory=list)


@dataclass
class Entries:
    """The content of an annotation file.

    skipped: (entry, reason) for each entry that was left out.
    counts: decisions, and how often each was made.
    """

    images: list[ImageEntry]
    categories: list[Category]
    skipped: list[tuple[str, str]]
    counts: Counter[str]


def parse_entries(document: dict[str, Any], where: Path, size_of: SizeOf | None = None) -> Entries:
    """Check and return the content of a whole file.

    Args:
        document: the JSON object of the file.
        where: the file, for errors.
        size_of: returns (height, width) of an image by its file name, for entries without a size.

    Raises:
        DataError: one of its lists is missing, or its categories are not valid.
    """
    for name in ("images", "annotations", "categories"):
        if not isinstance(document.get(name), list):
            raise DataError(
                f"has no list `{name}`",
                where=where,
                expected="images, annotations and categories",
                fix="choose the file with the instances (instances_*.json)",
            )
    entries = Entries([], _parse_categories(document["categories"], where), [], Counter())
    images = _parse_images(document["images"], entries, size_of)
    entries.images = list(images.values())
    sizes = {str(image_id): image.size for image_id, image in images.items()}
    unit = find_unit(document["annotations"], lambda image_id: sizes.get(str(image_id)), where)
    # COCO's panoptic files mark categories of instances ("things", 1) and of regions ("stuff", 0); plain COCO has only instances.
    is_thing = {raw["id"]: bool(raw.get("isthing", 1)) for raw in document["categories"]}
    _add_annotations(document["annotations"], images, is_thing, entries, unit)
    _check_crowds(entries, where, is_export=_is_own_export(document))
    return entries


def _is_own_export(document: dict[str, Any]) -> bool:
    """Return whether segpipe wrote the file: there, ignored pixels are crowds, and a dataset may have no others."""
    info = document.get("info")
    return isinstance(info, dict) and "class_table" in info


def _check_crowds(entries: Entries, where: Path, is_export: bool) -> None:
    """Count the crowd annotations.

    Raises:
        DataError: all annotations are crowds, so that nothing but ignored pixels would be left.
    """
    annotations = [annotation for image in entries.images for annotation in image.annotations]
    crowds = sum(annotation.ignored for annotation in annotations)
    if crowds and crowds == len(annotations) and not is_export:
        raise DataError(
            "all annotations are crowds (iscrowd 1), whose pixels are ignored",
            where=where,
            found=f"{crowds} annotations",
            expected="some with iscrowd 0",
            fix="set `iscrowd` to 0 for those that outline single objects; some tools set it for every run-length code",
        )
    entries.counts[CROWDS] += crowds


def _parse_categories(raw: list[Any], where: Path) -> list[Category]:
    categories: dict[int, Category] = {}
    for entry in raw:
        if isinstance(entry, dict):
            entry["id"] = _as_id(entry.get("id"))
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not str(entry.get("name") or "").strip():
            raise DataError(
                "a category without an integer id, or without a name",
                where=where,
                found=repr(entry)[:80],
                expected='{"id": 1, "name": "cell"}',
            )
        parent = entry.get("supercategory")
        parent = parent if isinstance(parent, str) else None
        category = Category(entry["id"], str(entry["name"]), _parse_color(entry.get("color")), parent)
        if category.id in categories:
            raise DataError(
                "two categories with the same id",
                where=where,
                found=f"{category.id}: {categories[category.id].name}, {category.name}",
                fix="give each its own id",
            )
        categories[category.id] = category
    return list(categories.values())


def _parse_color(raw: object) -> tuple[int, int, int] | None:
    if isinstance(raw, list) and len(raw) == 3 and all(type(part) is int and 0 <= part <= 255 for part in raw):
        return (raw[0], raw[1], raw[2])
    return None


def _parse_images(raw: list[Any], entries: Entries, size_of: SizeOf | None) -> dict[int | str, ImageEntry]:
    """Return images by id. An image whose id or file occurs twice is left out: its annotations would be ambiguous."""
    images: dict[int | str, ImageEntry] = {}
    valid = []
    for index, entry in enumerate(raw):
        try:
            valid.append(_parse_image(entry, size_of))
        except DataError as error:
            name = entry.get("file_name") if isinstance(entry, dict) else None
            entries.skipped.append((str(name or f"images[{index}]"), str(error)))
    ids = Counter(image_id for image_id, _ in valid)
    names = Counter(image.file_name for _, image in valid)
    for image_id, image in valid:
        if ids[image_id] > 1:
            entries.skipped.append((image.file_name, f"its image id {image_id} is given to {ids[image_id]} images"))
        elif names[image.file_name] > 1:
            entries.skipped.append((image.file_name, f"is listed {names[image.file_name]} times, with different ids"))
        else:
            images[image_id] = image
    return images


def _parse_image(entry: Any, size_of: SizeOf | None) -> tuple[int | str, ImageEntry]:
    if not isinstance(entry, dict) or type(entry.get("id")) not in (int, str):
        raise DataError("an image without an id", found=repr(entry)[:80])
    name, height, width = entry.get("file_name"), entry.get("height"), entry.get("width")
    if not isinstance(name, str) or not name.strip():
        raise DataError("an image without a file_name", found=repr(name), fix=f"name the file of image {entry['id']}")
    if size_of is not None and not (_is_edge(height) and _is_edge(width)):
        height, width = size_of(name)
    if not _is_edge(height) or not _is_edge(width):
        raise DataError("an image without a size", found=f"width {width}, height {height}", expected="pixels")
    group = entry.get("group")
    return entry["id"], ImageEntry(name, (height, width), str(group) if group not in (None, "") else None)


def _as_id(raw: Any) -> Any:
    """Return an id that is written as a string of digits as a number; anything else unchanged."""
    return int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < _MAX_ID_DIGITS else raw


def _is_edge(raw: Any) -> TypeGuard[int]:
    return type(raw) is int and 0 < raw < _MAX_EDGE_PIXELS


def _add_annotations(
    raw: list[Any],
    images: dict[int | str, ImageEntry],
    is_thing: dict[int, bool],
    entries: Entries,
    unit: Unit,
) -> None:
    by_text = {str(image_id): image for image_id, image in images.items()}
    first_index: dict[Any, int] = {}
    incomplete: set[str] = set()
    for index, entry in enumerate(raw):
        if not isinstance(entry, dict):
            entries.skipped.append((f"annotations[{index}]", f"not an annotation: {repr(entry)[:40]}"))
            continue
        image_id = entry.get("image_id")
        image = (images.get(image_id) or by_text.get(str(image_id))) if isinstance(image_id, int | str) else None
        number = entry.get("id")
        name = f"annotation {number if type(number) in (int, str) else f'[{index}]'}"
        name += f" of {image.file_name}" if image else ""
        try:
            # Drawing does not need ids: a repeated annotation is left out, a different one with the same id is kept.
            if type(number) in (int, str) and first_index.setdefault(number, index) != index:
                if raw[first_index[number]] == entry:
                    raise DataError("occurs twice")
                entries.counts["annotations that share their id with another one, kept"] += 1
            if image is None:
                raise DataError(
                    "refers to an image that is missing or was left out", found=f"image_id {entry.get('image_id')}"
                )
            category = _as_id(entry.get("category_id"))
            if type(category) is not int or category not in is_thing:
                raise DataError(
                    "has no valid category",
                    found=f"category_id {category!r}",
                    expected=f"one of {sorted(is_thing)}"[:80],
                )
            shape = _parse_shape(entry.get("segmentation"), image.size, name, entries, unit)
        except DataError as error:
            entries.skipped.append((name, str(error)))
            if image is not None and "occurs twice" not in str(error):
                incomplete.add(image.file_name)
            continue
        is_instance = bool(entry.get("isthing", is_thing[category]))
        image.annotations.append(Annotation(shape, category, bool(entry.get("iscrowd")), is_instance))
    entries.counts[INCOMPLETE] += len(incomplete)


def _parse_shape(raw: Any, size: tuple[int, int], name: str, entries: Entries, unit: Unit) -> Shape:
    if isinstance(raw, dict):
        runs = parse_runs(raw.get("size"), raw.get("counts"))
        if (runs.height, runs.width) != size:
            raise DataError(
                "the run-length code has a different size",
                found=f"{runs.width} x {runs.height}",
                expected=f"{size[1]} x {size[0]}",
            )
        return runs
    if not isinstance(raw, list) or not raw:
        raise DataError(
            "has no outline (a box is not enough)", found=repr(raw)[:40], expected="polygons or a run-length code"
        )
    lists = flat_outlines(raw)
    parts, reasons = [], []
    for part in lists:
        try:
            parts.append(parse_polygon(part))
        except DataError as error:
            reasons.append(str(error))
    if not parts:
        raise DataError(reasons[0])
    entries.skipped += [(f"a part of {name}", reason) for reason in reasons]
    shape = Polygons(tuple(parts))
    if unit != "pixels":
        shape = shape.scaled(size[1] / UNIT_SIZES[unit], size[0] / UNIT_SIZES[unit])
        entries.counts[SCALED[unit]] += 1
    entries.counts[CLIPPED] += reaches_out(shape, *size)
    return shape

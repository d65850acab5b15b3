"""The three lists of a COCO annotation file, each entry checked: what is broken is left out with its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segpipe.data.formats.annotations.categories import Category
from segpipe.data.formats.annotations.painter import CLIPPED, Annotation
from segpipe.data.formats.annotations.shapes import Polygons, Shape, parse_polygon, parse_runs, reaches_out
from segpipe.errors import DataError


@dataclass(frozen=True)
class ImageEntry:
    """An image of an annotation file, with its objects. `size` is (height, width)."""

    file_name: str
    size: tuple[int, int]
    group: str | None
    objects: list[Annotation] = field(default_factory=list)


@dataclass
class Entries:
    """What an annotation file holds. `skipped` are (entry, reason); `counts` says what was decided, with how often."""

    photos: list[ImageEntry]
    categories: list[Category]
    skipped: list[tuple[str, str]]
    counts: Counter[str]


def parse_entries(document: dict[str, Any], where: Path) -> Entries:
    """Check a whole file. Raises DataError where its lists or its categories are not those of COCO."""
    for name in ("images", "annotations", "categories"):
        if not isinstance(document.get(name), list):
            raise DataError(
                f"has no list `{name}`", where=where, expected="images, annotations and categories",
                fix="choose the file with the objects (instances_*.json)",
            )
    entries = Entries([], _categories(document["categories"], where), [], Counter())
    photos = _photos(document["images"], entries)
    entries.photos = list(photos.values())
    # COCO's panoptic files say which categories are objects (1) and which stuff (0); those of plain COCO are objects.
    known = {raw["id"]: bool(raw.get("isthing", 1)) for raw in document["categories"]}
    _add_objects(document["annotations"], photos, known, entries)
    return entries


def _categories(raw: list[Any], where: Path) -> list[Category]:
    categories: dict[int, Category] = {}
    for entry in raw:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not str(entry.get("name") or "").strip():
            raise DataError(
                "a category without id or name", where=where, found=repr(entry)[:80], expected='{"id": 1, "name": "cell"}'
            )
        category = Category(entry["id"], str(entry["name"]), _color(entry.get("color")))
        if category.id in categories:
            raise DataError(
                "two categories of one id", where=where, found=f"{category.id}: {categories[category.id].name}, {category.name}",
                fix="give each an id of its own",
            )
        categories[category.id] = category
    return list(categories.values())


def _color(raw: object) -> tuple[int, int, int] | None:
    if isinstance(raw, list) and len(raw) == 3 and all(type(part) is int and 0 <= part <= 255 for part in raw):
        return (raw[0], raw[1], raw[2])
    return None


def _photos(raw: list[Any], entries: Entries) -> dict[int | str, ImageEntry]:
    """Images by id; one whose id or file comes twice is left out, for nobody can tell whose objects are whose."""
    photos: dict[int | str, ImageEntry] = {}
    good = []
    for place, entry in enumerate(raw):
        try:
            good.append(_photo(entry))
        except DataError as error:
            name = entry.get("file_name") if isinstance(entry, dict) else None
            entries.skipped.append((str(name or f"images[{place}]"), str(error)))
    ids = Counter(number for number, _ in good)
    names = Counter(photo.file_name for _, photo in good)
    for number, photo in good:
        if ids[number] > 1:
            entries.skipped.append((photo.file_name, f"its image id {number} is given to {ids[number]} images"))
        elif names[photo.file_name] > 1:
            entries.skipped.append((photo.file_name, f"is listed {names[photo.file_name]} times, with different ids"))
        else:
            photos[number] = photo
    return photos


def _photo(entry: Any) -> tuple[int | str, ImageEntry]:
    if not isinstance(entry, dict) or type(entry.get("id")) not in (int, str):
        raise DataError("an image without an id", found=repr(entry)[:80])
    name, height, width = entry.get("file_name"), entry.get("height"), entry.get("width")
    if not isinstance(name, str) or not name.strip():
        raise DataError("an image without a file_name", found=repr(name), fix=f"name the file of image {entry['id']}")
    if type(height) is not int or type(width) is not int or not (0 < height < 1 << 20 and 0 < width < 1 << 20):
        raise DataError("an image without a size", found=f"width {width}, height {height}", expected="pixels")
    group = entry.get("group")
    return entry["id"], ImageEntry(name, (height, width), str(group) if group not in (None, "") else None)


def _add_objects(raw: list[Any], photos: dict[int | str, ImageEntry], known: dict[int, bool], entries: Entries) -> None:
    first: dict[Any, int] = {}
    for place, entry in enumerate(raw):
        if not isinstance(entry, dict):
            entries.skipped.append((f"annotations[{place}]", f"is no object: {repr(entry)[:40]}"))
            continue
        photo = photos.get(entry["image_id"]) if type(entry.get("image_id")) in (int, str) else None
        number = entry.get("id")
        name = f"annotation {number if type(number) in (int, str) else f'[{place}]'}"
        name += f" of {photo.file_name}" if photo else ""
        try:
            # Drawing needs no ids: the same annotation once more is left out, another one of the same id is an object all the same.
            if type(number) in (int, str) and first.setdefault(number, place) != place:
                if raw[first[number]] == entry:
                    raise DataError("stands there twice")
                entries.counts["annotations that share their id with another, kept"] += 1
            if photo is None:
                raise DataError("belongs to no image that can be used", found=f"image_id {entry.get('image_id')}")
            category = entry.get("category_id")
            if type(category) is not int or category not in known:
                raise DataError(
                    "is of no category", found=f"category_id {category}", expected=f"one of {sorted(known)}"[:80]
                )
            shape = _shape(entry.get("segmentation"), photo.size, name, entries)
        except DataError as error:
            entries.skipped.append((name, str(error)))
            continue
        thing = bool(entry.get("isthing", known[category]))
        photo.objects.append(Annotation(shape, category, bool(entry.get("iscrowd")), thing))


def _shape(raw: Any, size: tuple[int, int], name: str, entries: Entries) -> Shape:
    if isinstance(raw, dict):
        runs = parse_runs(raw.get("size"), raw.get("counts"))
        if (runs.height, runs.width) != size:
            raise DataError(
                "the run-length code is of another size", found=f"{runs.width} x {runs.height}",
                expected=f"{size[1]} x {size[0]}",
            )
        return runs
    if not isinstance(raw, list) or not raw:
        raise DataError(
            "has no outline (a box is none)", found=repr(raw)[:40], expected="polygons or a run-length code"
        )
    lists = raw if isinstance(raw[0], list) else [raw]
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
    entries.counts[CLIPPED] += reaches_out(shape, *size)
    return shape

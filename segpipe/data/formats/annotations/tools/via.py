"""`via`: projects and annotations of the VGG Image Annotator, version 1 and 2, as JSON or CSV.

```
SRC/via_region_data.json   SRC/a.jpg      the annotations, or a project (with `_via_img_metadata`); also one for each of train/, val/
SRC/via_export_csv.csv     SRC/a.jpg      the same as CSV
```

Regions are polygons, rectangles, circles, ellipses; others are counted. The class is the value of a region attribute; if regions have
several, `--attribute` names it. A region without a value has no known class: its pixels are ignored.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.annotations.painter import CLIPPED
from segpipe.data.formats.annotations.shapes import Shape, parse_polygon
from segpipe.data.formats.annotations.tools.class_attribute import choose_attribute
from segpipe.data.formats.annotations.tools.cvat_shapes import NOT_DRAWN
from segpipe.data.formats.annotations.tools.image_finder import ImageFinder, annotation_files
from segpipe.data.formats.annotations.tools.labelled_images import (
    BOXES,
    IncompleteImage,
    LabelledImage,
    LabelledShape,
    LabelTable,
    add_items,
)
from segpipe.data.formats.annotations.tools.outlines import box_outline, ellipse_outline, with_holes
from segpipe.data.formats.folder_names import SPLIT_FOLDERS
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.errors import DataError
from segpipe.files import read_bytes

UNNAMED_CLASS = "object"
WITHOUT_CLASS = "regions without a class, whose pixels are ignored"
_METADATA, _ATTRIBUTES = "_via_img_metadata", "_via_attributes"
_MAX_FILE_BYTES = 1 << 29
_MAX_FILES_CHECKED = 3
_MIN_NAMES = 10
"""Regions of which each has a value of its own: from this number on they may be names, and the user is asked."""
_CSV_HEADER = (b"region_shape_attributes", b"region_attributes", b"filename")
_WITHOUT_AREA = ("point", "polyline", "line")
_SHAPES = ("polygon", "rect", "circle", "ellipse")
_KEYS = (b'"shape_attributes"', b'"region_attributes"', b'"file_attributes"')
_VIA3 = (b'"_via_data_format"', b'"project"', b'"view"')


@dataclass(frozen=True)
class _Region:
    """A region: its shape attributes, and its attributes with a value."""

    shape: dict[str, Any]
    attributes: dict[str, str]
    name: str


@dataclass(frozen=True)
class _Entry:
    """An image of an annotation file."""

    file_name: str
    where: Path
    regions: list[_Region]


def recognise_via(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a JSON or CSV file with regions of VIA in it, or one folder down. None otherwise."""
    for folder in (probe.source, *probe.listing.folders(probe.source)):
        for pattern in ("*.json", "*.csv"):
            for path in probe.listing.matching(folder, pattern)[:_MAX_FILES_CHECKED]:
                if _is_via(path):
                    return f"{path.relative_to(probe.source).as_posix()} with regions of VIA"
    return None


def _is_via(path: Path) -> bool:
    content = peek(path)
    if path.suffix.lower() == ".csv":
        return all(column in content[:400] for column in _CSV_HEADER)
    if all(key in content for key in _VIA3):
        return True  # reading it says that this version is not supported
    return b'"regions"' in content and any(key in content for key in _KEYS)


def read_via(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read all annotation files of the source. A broken region is left out with the reason, and a broken file too.

    Args:
        probe: the source.
        options: `images` names the folder of images, `masks` one annotation file, `attribute` the region attribute that holds the class.

    Raises:
        DataError: there is no annotation file; none of them has a region that can be drawn; or several attributes could be the class.
        ConfigError: a folder or file that the user names does not exist, or no region has the attribute that the user names.
    """
    source = probe.source.resolve()
    result = ReadResult([])
    finder, counts = ImageFinder(probe, options), Counter[str]()
    entries: list[_Entry] = []
    for file in annotation_files(probe, options, (".json", ".csv"), _is_via):
        try:
            entries += _read_file(file.path, result)
            result.used_files.add(file.path)
        except DataError as error:
            result.skipped.append((file.name, str(error)))
    if not entries:
        raise DataError(
            "no annotations of VIA",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else None,
            expected="a JSON or CSV file with regions",
            fix="export the annotations of VIA 2 as JSON, or choose another --format",
        )
    attributes = [region.attributes for entry in entries for region in entry.regions]
    attribute = choose_attribute(attributes, options.attribute, source, "region attribute", _MIN_NAMES)
    result.classes_from = f"the attribute {attribute}" if attribute else "one class for all regions"
    images = []
    for entry in entries:
        image = _labelled_image(entry, attribute, finder, result, counts)
        images += [image] if image else []
    add_items(result, images, LabelTable(), counts + finder.counts, source, options)
    return result


def _read_file(path: Path, result: ReadResult) -> list[_Entry]:
    if path.suffix.lower() == ".csv":
        return _read_csv(path, result)
    document = read_document(path, _MAX_FILE_BYTES)
    if "project" in document and "view" in document and _METADATA not in document:
        raise DataError("is a project of VIA 3", expected="VIA 2", fix="export the annotations as COCO (--format coco)")
    metadata = document.get(_METADATA, document)
    if not isinstance(metadata, dict):
        raise DataError("has no images", expected=f"`{_METADATA}` or {{image: {{filename, regions}}}}")
    options = _option_names(document.get(_ATTRIBUTES))
    entries = []
    for key, raw in metadata.items():
        if not isinstance(raw, dict) or not isinstance(raw.get("filename"), str):
            result.skipped.append((f"{path.name}: {key[:80]}", "is not an image with `filename` and `regions`"))
            continue
        regions = raw.get("regions") or []
        listed = list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []
        entries.append(_Entry(raw["filename"], path, list(_regions(listed, raw["filename"], options, path, result))))
    return entries


def _option_names(raw: object) -> dict[str, dict[str, str]]:
    """Return {attribute: {id: description}} of the options of a project: regions hold ids, users see descriptions."""
    regions = raw.get("region") if isinstance(raw, dict) else None
    names: dict[str, dict[str, str]] = {}
    for attribute, definition in regions.items() if isinstance(regions, dict) else ():
        choices = definition.get("options") if isinstance(definition, dict) else None
        if isinstance(choices, dict):
            names[attribute] = {k: v.strip() for k, v in choices.items() if isinstance(v, str) and v.strip()}
    return names


def _regions(
    raw: list[Any], file_name: str, options: dict[str, dict[str, str]], path: Path, result: ReadResult
) -> Iterator[_Region]:
    for number, entry in enumerate(raw):
        name = f"{path.name}: {file_name}: region {number}"
        shape = entry.get("shape_attributes") if isinstance(entry, dict) else None
        if not isinstance(shape, dict):
            result.skipped.append((name, "is not a region with `shape_attributes`"))
            continue
        attributes = entry.get("region_attributes")
        values = attributes if isinstance(attributes, dict) else {}
        named = {str(key): _value(value, options.get(str(key), {})) for key, value in values.items()}
        yield _Region(shape, {key: value for key, value in named.items() if value}, name)


def _value(raw: object, names: dict[str, str]) -> str:
    """Return the value of an attribute: a text, a number, or the checked options {option: true} joined by a plus sign."""
    if isinstance(raw, dict):
        return "+".join(sorted(names.get(str(key), str(key)) for key, checked in raw.items() if checked))
    text = str(raw).strip() if isinstance(raw, str | int | float) and not isinstance(raw, bool) else ""
    return names.get(text, text)


def _read_csv(path: Path, result: ReadResult) -> list[_Entry]:
    try:
        text = read_bytes(path, _MAX_FILE_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text.removeprefix("#"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a table in UTF-8: {error}", fix="export it again") from error
    by_name: dict[str, list[Any]] = {}
    for number, row in enumerate(rows, start=2):
        name = row.get("filename")
        if not name:
            result.skipped.append((f"{path.name}: line {number}", "has no filename"))
            continue
        regions = by_name.setdefault(name, [])
        try:
            shape = json.loads(row.get("region_shape_attributes") or "{}")
            attributes = json.loads(row.get("region_attributes") or "{}")
        except (ValueError, RecursionError) as error:
            result.skipped.append((f"{path.name}: line {number}", f"is not valid JSON: {error}"))
            continue
        if shape:  # an image without regions has a line, too
            regions.append({"shape_attributes": shape, "region_attributes": attributes})
    return [_Entry(name, path, list(_regions(raw, name, {}, path, result))) for name, raw in by_name.items()]


def _labelled_image(
    entry: _Entry, attribute: str | None, finder: ImageFinder, result: ReadResult, counts: Counter[str]
) -> LabelledImage | None:
    folder = entry.where.parent
    try:
        image = finder.find(entry.file_name, [folder, folder / "images"], entry.where.name)
        size = finder.size_of(image)
    except DataError as error:
        result.skipped.append((f"{entry.where.name}: {entry.file_name[:200]}", str(error)))
        return None
    shapes = []
    unknown = [kind for region in entry.regions if (kind := region.shape.get("name")) not in (*_SHAPES, *_WITHOUT_AREA)]
    if unknown:
        result.skipped.append((f"{entry.where.name}: {entry.file_name[:200]}", str(IncompleteImage(unknown[0]))))
        return None
    for region in entry.regions:
        kind = region.shape.get("name")
        if kind not in _SHAPES:
            counts[NOT_DRAWN.format(kind=str(kind)[:40])] += 1
            continue
        try:
            shape, is_clipped = _parse_shape(str(kind), region.shape, size)
        except DataError as error:
            result.skipped.append((region.name, str(error)))
            continue
        label = region.attributes.get(attribute, "") if attribute else UNNAMED_CLASS
        counts[CLIPPED] += is_clipped
        counts[BOXES] += kind == "rect"
        counts[WITHOUT_CLASS] += not label
        shapes.append(LabelledShape(label or UNNAMED_CLASS, shape, ignored=not label))
    relative = image.relative_to(finder.root).parts[:-1]
    split = next((SPLIT_FOLDERS[part.lower()] for part in relative if part.lower() in SPLIT_FOLDERS), None)
    return LabelledImage(finder.name_of(image), image, size, shapes, split)


def _parse_shape(kind: str, shape: dict[str, Any], size: tuple[int, int]) -> tuple[Shape, bool]:
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise DataError("is a polygon whose lists of x and y differ in length")
        return with_holes([[parse_polygon([number for pair in zip(xs, ys, strict=True) for number in pair])]], *size)
    if kind == "rect":
        x, y, width, height = (_number(shape, key) for key in ("x", "y", "width", "height"))
        return with_holes([[box_outline(x, y, x + width, y + height)]], *size)
    x, y = _number(shape, "cx"), _number(shape, "cy")
    if kind == "circle":
        radius = _number(shape, "r")
        return with_holes([[ellipse_outline(x, y, radius, radius)]], *size)
    radians = _number(shape, "theta") if "theta" in shape else 0.0
    outline = ellipse_outline(x, y, _number(shape, "rx"), _number(shape, "ry"), math.degrees(radians))
    return with_holes([[outline]], *size)


def _number(shape: dict[str, Any], key: str) -> float:
    value = shape.get(key)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e9:
        raise DataError(f"has no valid `{key}`", found=repr(value)[:40], expected="a number")
    return float(value)

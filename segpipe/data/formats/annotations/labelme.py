"""`labelme`: a JSON beside each image, with shapes in pixels and a label for each.

Labels are classes, in name order; `_background_` is the background and `__ignore__` counts nowhere. Shapes of one label and one
`group_id` are parts of one object. The image is the file beside the JSON that `imagePath` or the JSON's own name says, never one in
another folder; where there is none, the image that the JSON itself holds.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.annotations.categories import Category, is_background_category, number_classes
from segpipe.data.formats.annotations.painter import CLIPPED, Annotation, Painter
from segpipe.data.formats.annotations.shapes import Polygons, parse_polygon, reaches_out
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult, files_below
from segpipe.data.images import SUFFIXES
from segpipe.errors import DataError

IGNORED_LABEL = "__ignore__"
_MAX_JSON_BYTES = 1 << 29
_KEYS = (b'"shapes"', b'"imagePath"')
_MAGIC = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
_NAMED = 8
_NOT_AREAS = ("line", "linestrip", "point", "points")

Label = tuple[str, Polygons]


def recognise_labelme(source: Path) -> str | None:
    """Why `source` is of this layout: one of the first JSON files in it says so; None where none does."""
    for folder in (source, *sorted(path for path in source.iterdir() if path.is_dir())):
        for path in sorted(folder.glob("*.json"))[:3]:
            if all(key in peek(path) for key in _KEYS):
                return f"{path.relative_to(source).as_posix()} with `shapes` and `imagePath`"
    return None


def read_labelme(source: Path, options: ReadOptions) -> ReadResult:
    """Read every JSON of the layout, at any depth. A broken shape is left out with its reason, and so is a broken file.

    Raises DataError where there is no such file, or none that holds together.
    """
    source = source.resolve()
    paths = [path for path in files_below(source) if path.suffix.lower() == ".json"]
    found = ReadResult([], classes_from="the labels of the shapes")
    counts: Counter[str] = Counter()
    read: list[tuple[RawItem, tuple[int, int], list[Label]]] = []
    for path in paths:
        shown = path.relative_to(source).as_posix()
        try:
            read.append(_read_file(path, source, shown, found, counts))
        except DataError as error:
            found.skipped.append((shown, str(error)))
    if not read:
        raise DataError(
            "no labelme files", where=source, found=": ".join(found.skipped[0]) if found.skipped else None,
            expected="a JSON with `shapes` for each image", fix="choose another --format",
        )
    names = {name for _, _, labels in read for name, _ in labels}
    classes = sorted(name for name in names - {IGNORED_LABEL} if not is_background_category(name))
    numbers = dict.fromkeys(names, 0) | {name: number for number, name in enumerate(classes, start=1)}
    categories = [Category(number, name) for name, number in numbers.items() if name != IGNORED_LABEL]
    numbering = number_classes(categories, IGNORED_LABEL in names, source)
    found.classes = numbering.classes
    for item, size, labels in _each_image_once(read, found):
        marked = [Annotation(shape, numbers[name], ignored=name == IGNORED_LABEL) for name, shape in labels]
        painter = Painter(marked, numbering, size, True, str(item.image))
        found.items.append(RawItem(item.name, item.image, draw=painter, content=item.content))
    folders = sorted({item.name.rpartition("/")[0] or "." for item in found.items})
    found.notes += (
        [f"taken together: {', '.join(folders[:_NAMED])}{' ...' * (len(folders) > _NAMED)}"] if folders[1:] else []
    )
    found.notes += [f"{text}: {count}" for text, count in counts.items() if count]
    return found


def _each_image_once(
    read: list[tuple[RawItem, tuple[int, int], list[Label]]], found: ReadResult
) -> list[tuple[RawItem, tuple[int, int], list[Label]]]:
    times = Counter(item.image for item, _, _ in read)
    for image, count in times.items():
        if count > 1:
            found.skipped.append((image.name, f"{count} JSON files claim this image"))
    return [entry for entry in read if times[entry[0].image] == 1]


def _read_file(
    path: Path, source: Path, shown: str, found: ReadResult, counts: Counter[str]
) -> tuple[RawItem, tuple[int, int], list[Label]]:
    document = read_document(path, _MAX_JSON_BYTES)
    shapes, height, width = document.get("shapes"), document.get("imageHeight"), document.get("imageWidth")
    if not isinstance(shapes, list):
        raise DataError("has no list `shapes`", expected="a file that labelme has written")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise DataError(
            "has no size of its image", found=f"imageWidth {width}, imageHeight {height}", expected="pixels"
        )
    grouped: dict[tuple[str, Any], list[npt.NDArray[np.float64]]] = {}
    for number, entry in enumerate(shapes):
        try:
            name, outline = _shape(entry)
            counts[CLIPPED] += reaches_out(Polygons((outline,)), height, width)
        except DataError as error:
            found.skipped.append((f"{shown}: shape {number}", str(error)))
            continue
        group = entry.get("group_id")
        part_of = (name, f"group {group}" if group is not None else number)
        grouped.setdefault(part_of, []).append(outline)
    labels = [(name, Polygons(tuple(parts))) for (name, _), parts in grouped.items()]
    name = path.relative_to(source).with_suffix("").as_posix()
    image = _image_beside(path, document.get("imagePath"), source)
    if image is not None:
        return RawItem(name, image), (height, width), labels
    ending = _embedded_ending(document.get("imageData"))
    counts["images taken out of their JSON, for no file lies beside it"] += 1
    return RawItem(name, path.with_suffix(ending), content=partial(embedded_image, path)), (height, width), labels


def _shape(entry: Any) -> tuple[str, npt.NDArray[np.float64]]:
    """The label and the outline (n, 2) of a shape. Raises DataError for one that has no area or makes no sense."""
    if not isinstance(entry, dict):
        raise DataError("is no shape", found=repr(entry)[:40])
    name, kind, points = entry.get("label"), entry.get("shape_type") or "polygon", entry.get("points")
    if not isinstance(name, str) or not name.strip():
        raise DataError("has no label", found=repr(name)[:40])
    if kind in _NOT_AREAS:
        raise DataError("has no area", found=kind, expected="polygon, rectangle or circle", fix="outline the object")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise DataError("has points that are no pairs", found=repr(points)[:40], expected="[[x, y], ...]")
    flat = [coordinate for point in points for coordinate in point]
    if kind == "polygon":
        return name.strip(), parse_polygon(flat)
    if kind not in ("rectangle", "circle"):
        raise DataError("is of a kind that is not read", found=repr(kind)[:40], expected="polygon, rectangle or circle")
    if len(points) != 2:
        raise DataError(f"is a {kind} of other than 2 points", found=len(points))
    # One of the two points once more: what holds for a polygon of three holds for them.
    (x0, y0), (x1, y1), _ = parse_polygon(flat + flat[:2])
    if kind == "rectangle":
        return name.strip(), np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return name.strip(), _circle(x0, y0, float(np.hypot(x1 - x0, y1 - y0)))


def _circle(x: float, y: float, radius: float) -> npt.NDArray[np.float64]:
    """A polygon that is nowhere more than a hundredth of a pixel inside its circle."""
    if not 0 < radius < 1e6:
        raise DataError("is a circle of an impossible radius", found=f"{radius:g}")
    corners = max(16, int(np.ceil(np.pi / np.arccos(1 - min(0.5, 0.01 / radius)))))
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def _image_beside(path: Path, said: object, source: Path) -> Path | None:
    """An image file in the folder of its JSON: of the name that the JSON says (whatever folder it says), else of the JSON's own."""
    names = [PureWindowsPath(said).name] if isinstance(said, str) and "\0" not in said and len(said) < 4096 else []
    names += [path.stem + suffix for suffix in SUFFIXES] + [path.stem + suffix.upper() for suffix in SUFFIXES]
    for name in names:
        candidate = path.with_name(name) if name not in ("", ".", "..") else path
        try:
            there = candidate.resolve()
            if candidate.suffix.lower() in SUFFIXES and there.is_file() and there.is_relative_to(source):
                return there
        except (OSError, RuntimeError):  # too long, or a loop of links
            continue
    return None


def _embedded_ending(data: object) -> str:
    try:
        start = base64.b64decode(data[:64], validate=True) if isinstance(data, str) else b""
    except (binascii.Error, ValueError) as error:
        raise DataError("the image in it is broken: it is no base64", fix="put the image beside it") from error
    ending = next((ending for magic, ending in _MAGIC if start.startswith(magic)), None)
    if ending is None:
        raise DataError(
            "has no image", found="no file beside it, and no image in it" if not start else "imageData that is no image",
            fix="put the image beside it",
        )
    return ending


def embedded_image(path: Path) -> bytes:
    """The bytes of the image that a labelme file holds. Raises DataError where they are not whole."""
    data = read_document(path, _MAX_JSON_BYTES).get("imageData")
    try:
        return base64.b64decode(data if isinstance(data, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            "the image in it is broken: it is no base64", where=path, fix="put the image beside it"
        ) from error

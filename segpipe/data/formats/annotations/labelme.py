"""`labelme`: a JSON next to each image, with shapes in pixels and a label for each.

Labels are classes, in name order; `_background_` is the background, and `__ignore__` marks ignored pixels. Shapes with the same label
and the same `group_id` are parts of one instance. The image is the file next to the JSON that `imagePath` or the JSON's own name
names, never a file in another folder; if there is none, the image that the JSON itself holds.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.categories import Category, is_background_category, number_classes
from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.annotations.painter import CLIPPED, Annotation, Painter
from segpipe.data.formats.annotations.shapes import Polygons, parse_polygon, reaches_out
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import SUFFIXES
from segpipe.errors import DataError
from segpipe.words import listed

IGNORED_LABEL = "__ignore__"
_MAX_JSON_BYTES = 1 << 29
_KEYS = (b'"shapes"', b'"imagePath"')
_SUFFIXES_BY_MAGIC = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
_MAX_FOLDERS_SHOWN = 8
_MAX_FILES_CHECKED = 3
"""JSON files of a folder that recognition looks at."""
_MAX_NAME_LENGTH = 4096
_TYPES_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_MAX_RADIUS_PIXELS = 1e6


@dataclass(frozen=True)
class _AnnotatedImage:
    """One image of the source with (label, outline) of its instances; `size` is (height, width) in pixels."""

    item: RawItem
    size: tuple[int, int]
    outlines: list[tuple[str, Polygons]]


def recognise_labelme(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: one of the first JSON files of a folder has its keys. None otherwise."""
    for folder in (probe.source, *probe.listing.folders(probe.source)):
        for path in probe.listing.matching(folder, "*.json")[:_MAX_FILES_CHECKED]:
            content = peek(path)
            if all(key in content for key in _KEYS):
                return f"{path.relative_to(probe.source).as_posix()} with `shapes` and `imagePath`"
    return None


def read_labelme(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read every JSON of the layout, at any depth. Broken files and broken shapes are left out with the reason.

    Raises:
        DataError: there is no such file, or not one of them is usable.
    """
    source = probe.source.resolve()
    files = [path for path in probe.listing.files_below(probe.source) if path.suffix.lower() == ".json"]
    result = ReadResult([], classes_from="the labels of the shapes")
    counts: Counter[str] = Counter()
    images: list[_AnnotatedImage] = []
    for file in files:
        name = file.relative_to(probe.source)
        try:
            images.append(_read_file(source / name, source, name.as_posix(), result, counts))
            result.used_files.add(file)
        except DataError as error:
            result.skipped.append((name.as_posix(), str(error)))
    if not images:
        raise DataError(
            "no labelme files",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else None,
            expected="a JSON with `shapes` for each image",
            fix="choose another --format",
        )
    labels = {label for image in images for label, _ in image.outlines}
    class_names = sorted(label for label in labels - {IGNORED_LABEL} if not is_background_category(label))
    ids = dict.fromkeys(labels, 0) | {label: number for number, label in enumerate(class_names, start=1)}
    categories = [Category(number, label) for label, number in ids.items() if label != IGNORED_LABEL]
    numbering = number_classes(categories, IGNORED_LABEL in labels, source)
    result.classes = numbering.classes
    for image in _without_ambiguous(images, result):
        item = image.item
        annotations = [Annotation(shape, ids[label], ignored=label == IGNORED_LABEL) for label, shape in image.outlines]
        painter = Painter(annotations, numbering, image.size, True, str(item.image))
        result.items.append(RawItem(item.name, item.image, draw=painter, content=item.content))
    folders = sorted({item.name.rpartition("/")[0] or "." for item in result.items})
    if len(folders) > 1:
        result.notes.append(f"several folders imported together: {listed(folders, _MAX_FOLDERS_SHOWN)}")
    result.notes += [f"{text}: {count}" for text, count in counts.items() if count]
    return result


def _without_ambiguous(images: list[_AnnotatedImage], result: ReadResult) -> list[_AnnotatedImage]:
    """Return the images that only one JSON file names."""
    times = Counter(image.item.image for image in images)
    for path, count in times.items():
        if count > 1:
            result.skipped.append((path.name, f"{count} JSON files name this image"))
    return [image for image in images if times[image.item.image] == 1]


def _read_file(path: Path, source: Path, name: str, result: ReadResult, counts: Counter[str]) -> _AnnotatedImage:
    document = read_document(path, _MAX_JSON_BYTES)
    shapes, height, width = document.get("shapes"), document.get("imageHeight"), document.get("imageWidth")
    if not isinstance(shapes, list):
        raise DataError("has no list `shapes`", expected="a file that labelme has written")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise DataError(
            "has no image size", found=f"imageWidth {width}, imageHeight {height}", expected="both in pixels"
        )
    parts_by_instance: dict[tuple[str, Any], list[npt.NDArray[np.float64]]] = {}
    for number, entry in enumerate(shapes):
        try:
            label, outline = _parse_shape(entry)
            counts[CLIPPED] += reaches_out(Polygons((outline,)), height, width)
        except DataError as error:
            result.skipped.append((f"{name}: shape {number}", str(error)))
            continue
        group = entry.get("group_id")
        instance = (label, f"group {group}" if group is not None else number)
        parts_by_instance.setdefault(instance, []).append(outline)
    outlines = [(label, Polygons(tuple(parts))) for (label, _), parts in parts_by_instance.items()]
    item_name = path.relative_to(source).with_suffix("").as_posix()
    image = _image_next_to(path, document.get("imagePath"), source)
    if image is not None:
        return _AnnotatedImage(RawItem(item_name, image), (height, width), outlines)
    suffix = _embedded_suffix(document.get("imageData"))
    counts["images taken from their JSON, because there is no file next to it"] += 1
    item = RawItem(item_name, path.with_suffix(suffix), content=partial(embedded_image, path))
    return _AnnotatedImage(item, (height, width), outlines)


def _parse_shape(entry: Any) -> tuple[str, npt.NDArray[np.float64]]:
    """Return the label and the outline (n, 2) of a shape.

    Raises:
        DataError: it has no area or is not valid.
    """
    if not isinstance(entry, dict):
        raise DataError("is not a shape", found=repr(entry)[:40])
    label, shape_type, points = entry.get("label"), entry.get("shape_type") or "polygon", entry.get("points")
    if not isinstance(label, str) or not label.strip():
        raise DataError("has no label", found=repr(label)[:40])
    if shape_type in _TYPES_WITHOUT_AREA:
        raise DataError(
            "has no area", found=shape_type, expected="polygon, rectangle or circle", fix="outline the instance"
        )
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise DataError("has points that are not pairs", found=repr(points)[:40], expected="[[x, y], ...]")
    flat = [coordinate for point in points for coordinate in point]
    if shape_type == "polygon":
        return label.strip(), parse_polygon(flat)
    if shape_type not in ("rectangle", "circle"):
        raise DataError(
            "has a shape type that is not supported",
            found=repr(shape_type)[:40],
            expected="polygon, rectangle or circle",
        )
    if len(points) != 2:
        raise DataError(f"is a {shape_type} without exactly 2 points", found=len(points))
    # The first point is repeated, so that the checks of a polygon apply to two points.
    (x0, y0), (x1, y1), _ = parse_polygon(flat + flat[:2])
    if shape_type == "rectangle":
        return label.strip(), np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return label.strip(), _circle(x0, y0, float(np.hypot(x1 - x0, y1 - y0)))


def _circle(x: float, y: float, radius: float) -> npt.NDArray[np.float64]:
    """Return a polygon that is nowhere more than a hundredth of a pixel inside its circle."""
    if not 0 < radius < _MAX_RADIUS_PIXELS:
        raise DataError("is a circle with an invalid radius", found=f"{radius:g}")
    n_corners = max(16, int(np.ceil(np.pi / np.arccos(1 - min(0.5, 0.01 / radius)))))
    angles = np.arange(n_corners) * (2 * np.pi / n_corners)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def _image_next_to(path: Path, image_path: object, source: Path) -> Path | None:
    """Return the image file in the folder of a JSON: with the name in `imagePath` (any folder in it is ignored), or the JSON's."""
    is_name = isinstance(image_path, str) and "\0" not in image_path and len(image_path) < _MAX_NAME_LENGTH
    names = [PureWindowsPath(str(image_path)).name] if is_name else []
    names += [path.stem + suffix for suffix in SUFFIXES] + [path.stem + suffix.upper() for suffix in SUFFIXES]
    for name in names:
        candidate = path.with_name(name) if name not in ("", ".", "..") else path
        try:
            image = candidate.resolve()
            if candidate.suffix.lower() in SUFFIXES and image.is_file() and image.is_relative_to(source):
                return image
        except (OSError, RuntimeError):  # too long, or a loop of links
            continue
    return None


def _embedded_suffix(image_data: object) -> str:
    """Return the suffix that fits the first bytes of an embedded image."""
    try:
        start = base64.b64decode(image_data[:64], validate=True) if isinstance(image_data, str) else b""
    except (binascii.Error, ValueError) as error:
        raise DataError("the embedded image is not base64", fix="put the image next to the JSON") from error
    suffix = next((suffix for magic, suffix in _SUFFIXES_BY_MAGIC if start.startswith(magic)), None)
    if suffix is None:
        raise DataError(
            "has no image",
            found="imageData that is not an image" if start else "no file next to it, and no imageData",
            fix="put the image next to the JSON",
        )
    return suffix


def embedded_image(path: Path) -> bytes:
    """Return the bytes of the image that a labelme file holds.

    Raises:
        DataError: they are not valid base64.
    """
    image_data = read_document(path, _MAX_JSON_BYTES).get("imageData")
    try:
        return base64.b64decode(image_data if isinstance(image_data, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("the embedded image is not base64", where=path, fix="put the image next to the JSON") from error

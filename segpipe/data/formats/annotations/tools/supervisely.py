"""`supervisely`: projects of Supervisely (and of Dataset Ninja) with images.

```
SRC/meta.json   SRC/DATASET/img/a.jpg   SRC/DATASET/ann/a.jpg.json      datasets may be nested: DATASET/datasets/OTHER/img
```

Objects are bitmaps (a PNG in zlib and base64, with the position of its upper left corner), polygons with holes, and rectangles. Lines and
points are counted; an image with objects of other kinds is left out. Later objects of a file cover earlier ones. Datasets or tags of
images called train, val and test are splits.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.annotations.painter import CLIPPED
from segpipe.data.formats.annotations.shapes import Shape, parse_polygon, runs_of_region
from segpipe.data.formats.annotations.tools.cvat_shapes import NOT_DRAWN
from segpipe.data.formats.annotations.tools.image_finder import ImageFinder
from segpipe.data.formats.annotations.tools.labelled_images import (
    BOXES,
    IncompleteImage,
    LabelledImage,
    LabelledShape,
    LabelTable,
    add_items,
    parse_hex_color,
)
from segpipe.data.formats.annotations.tools.outlines import box_outline, with_holes
from segpipe.data.formats.folder_names import SPLIT_FOLDERS
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.data.images.bounds import decoder_errors_as_data_errors
from segpipe.errors import DataError

_META, _IMAGES, _ANNOTATIONS = "meta.json", "img", "ann"
_KEYS = (b'"objects"', b'"size"')
_MAX_JSON_BYTES = 1 << 29
_MAX_META_BYTES = 1 << 24
_MAX_EDGE_PIXELS = 1 << 20
_MAX_DATASETS_CHECKED = 20
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_OVERHEAD = 1 << 16
_WITHOUT_AREA = ("point", "line", "polyline", "graph", "keypoints", "point_3d")
_DRAWN = ("bitmap", "polygon", "rectangle")


def recognise_supervisely(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a folder `ann` with its JSON files, at most three folders down. None otherwise."""
    folders = [probe.source]
    for _ in range(3):
        for folder in folders:
            for path in probe.listing.matching(folder / _ANNOTATIONS, "*.json")[:1]:
                if all(key in peek(path) for key in _KEYS):
                    return f"{path.relative_to(probe.source).as_posix()} with `objects` and `size` of Supervisely"
        folders = [child for folder in folders for child in probe.listing.folders(folder)[:_MAX_DATASETS_CHECKED]]
    return None


def read_supervisely(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read all datasets of a project. A broken object is left out with the reason, and a broken file too.

    Args:
        probe: the source.
        options: `images` names the folder of images, if it is not next to that of annotations.

    Raises:
        DataError: there is no annotation file, or none of them has an object that can be drawn.
        ConfigError: the folder of images does not exist.
    """
    source = probe.source.resolve()
    result = ReadResult([], classes_from="the classes of Supervisely")
    finder, labels, counts = ImageFinder(probe, options), LabelTable(), Counter[str]()
    images: list[LabelledImage] = []
    n_files = 0
    for file in probe.listing.files_below(probe.source):
        name = file.relative_to(probe.source)
        if file.name == _META and file.parent.name not in (_ANNOTATIONS, _IMAGES):
            if _add_classes(file, labels, result, name.as_posix()):
                result.used_files.add(file)
        elif file.parent.name == _ANNOTATIONS and file.suffix.lower() == ".json":
            n_files += 1
            try:
                images.append(_read_file(source / name, name.as_posix(), finder, result, labels, counts))
                result.used_files.add(file)
            except DataError as error:
                result.skipped.append((name.as_posix(), str(error)))
    if not n_files:
        raise DataError(
            "no annotations of Supervisely",
            where=source,
            expected="DATASET/img/a.jpg and DATASET/ann/a.jpg.json",
            fix="download the project in the format Supervisely, or choose another --format",
        )
    add_items(result, images, labels, counts + finder.counts, source, options)
    return result


def _add_classes(path: Path, labels: LabelTable, result: ReadResult, name: str) -> bool:
    """Add the classes of meta.json to the labels; return whether it is a meta.json of Supervisely."""
    try:
        classes = read_document(path, _MAX_META_BYTES).get("classes")
    except DataError as error:
        result.skipped.append((name, str(error)))
        return False
    for entry in classes if isinstance(classes, list) else ():
        title = entry.get("title") if isinstance(entry, dict) else None
        if isinstance(title, str) and title.strip():
            labels.add(title.strip(), parse_hex_color(entry.get("color")))
            if entry.get("shape") not in (*_DRAWN, "any", None):
                labels.not_drawn[title.strip()] += 1
    return isinstance(classes, list)


def _read_file(
    path: Path, name: str, finder: ImageFinder, result: ReadResult, labels: LabelTable, counts: Counter[str]
) -> LabelledImage:
    document = read_document(path, _MAX_JSON_BYTES)
    objects, raw_size = document.get("objects"), document.get("size")
    if not isinstance(objects, list):
        raise DataError("has no list `objects`", expected="an annotation of Supervisely")
    image = finder.find(path.stem, [path.parent.parent / _IMAGES, path.parent.parent], name)
    size = _size(raw_size) or finder.size_of(image)
    shapes = []
    for number, entry in enumerate(objects):
        try:
            shape = _parse_object(entry, number, size, labels, counts)
            shapes += [shape] if shape else []
        except IncompleteImage:
            raise
        except DataError as error:
            result.skipped.append((f"{name}: object {number}", str(error)))
    split = SPLIT_FOLDERS.get(path.parent.parent.name.lower()) or _split_of_tags(document.get("tags"))
    return LabelledImage(finder.name_of(image), image, size, shapes, split)


def _size(raw: object) -> tuple[int, int] | None:
    """Return (height, width) of an annotation file; None if it has no valid size."""
    height, width = (raw.get("height"), raw.get("width")) if isinstance(raw, dict) else (None, None)
    if type(height) is int and type(width) is int and min(height, width) > 0 and max(height, width) < _MAX_EDGE_PIXELS:
        return height, width
    return None


def _split_of_tags(tags: object) -> str | None:
    """Return the split that the tags of an image name; None if none or several do."""
    names = (
        [str(tag.get("name", "")).lower() for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    )
    splits = {SPLIT_FOLDERS[name] for name in names if name in SPLIT_FOLDERS}
    return splits.pop() if len(splits) == 1 else None


def _parse_object(
    entry: Any, number: int, size: tuple[int, int], labels: LabelTable, counts: Counter[str]
) -> LabelledShape | None:
    """Return an object of an annotation file; None if it has no area.

    Raises:
        IncompleteImage: it is of a kind that is not drawn.
        DataError: it is not valid.
    """
    if not isinstance(entry, dict):
        raise DataError("is not an object", found=repr(entry)[:40])
    title = entry.get("classTitle")
    if not isinstance(title, str) or not title.strip():
        raise DataError("has no classTitle", found=repr(title)[:40])
    points = entry.get("points")
    kind = entry.get("geometryType") or ("bitmap" if entry.get("bitmap") else "polygon" if points else None)
    if kind not in (*_DRAWN, *_WITHOUT_AREA):
        raise IncompleteImage(kind)
    if kind not in _DRAWN:
        counts[NOT_DRAWN.format(kind=str(kind)[:40])] += 1
        labels.not_drawn[title.strip()] += 1
        return None
    if kind == "bitmap":
        shape, is_clipped = _bitmap(entry.get("bitmap"), size)
    else:
        if not isinstance(points, dict):
            raise DataError(f"is a {kind} without points", expected='"points": {"exterior": ..., "interior": ...}')
        shape, is_clipped = _outline(str(kind), points, size)
        counts[BOXES] += kind == "rectangle"
    counts[CLIPPED] += is_clipped
    return LabelledShape(title.strip(), shape, layer=number)


def _outline(kind: str, points: dict[str, Any], size: tuple[int, int]) -> tuple[Shape, bool]:
    exterior, interior = points.get("exterior"), points.get("interior") or []
    if kind == "polygon":
        holes = [parse_polygon(_flat(hole)) for hole in interior] if isinstance(interior, list) else []
        return with_holes([[parse_polygon(_flat(exterior)), *holes]], *size)
    if not isinstance(exterior, list) or len(exterior) != 2:
        raise DataError("is a rectangle without exactly 2 points", found=repr(exterior)[:40])
    # The first point is repeated, so that the checks of a polygon apply to two points.
    corners = parse_polygon(_flat([*exterior, exterior[0]]))
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return with_holes([[box_outline(left, top, right, bottom)]], *size)


def _flat(points: object) -> list[Any]:
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise DataError("has points that are not pairs", found=repr(points)[:40], expected="[[x, y], ...]")
    return [coordinate for point in points for coordinate in point]


def _bitmap(raw: object, size: tuple[int, int]) -> tuple[Shape, bool]:
    """Return the pixels of a bitmap, and whether it reaches beyond the edge of its image."""
    data, origin = (raw.get("data"), raw.get("origin")) if isinstance(raw, dict) else (None, None)
    if not isinstance(data, str) or not isinstance(origin, list) or len(origin) != 2:
        raise DataError("is a bitmap without data or origin", expected='"bitmap": {"data": ..., "origin": [x, y]}')
    if not all(type(edge) is int and abs(edge) < _MAX_EDGE_PIXELS for edge in origin):
        raise DataError("is a bitmap with an invalid origin", found=repr(origin)[:40], expected="[x, y] in pixels")
    flags = decode_bitmap(data, size)
    left, top = origin
    if not flags.any() or left >= size[1] or top >= size[0] or left + flags.shape[1] <= 0 or top + flags.shape[0] <= 0:
        raise DataError("is a bitmap without pixels in its image", found=f"origin {origin}, size {flags.shape[::-1]}")
    is_clipped = left < 0 or top < 0 or left + flags.shape[1] > size[1] or top + flags.shape[0] > size[0]
    return runs_of_region(flags, top, left, *size), is_clipped


def decode_bitmap(data: str, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels (h, w) of a bitmap: a PNG, compressed with zlib, in base64.

    The PNG has one channel (every value but 0 is set), or its alpha channel tells which pixels are set.

    Args:
        data: the text.
        size: (height, width) of its image; a bitmap that is larger is not decompressed.

    Raises:
        DataError: it is not valid, or larger than its image.
    """
    most = 4 * size[0] * size[1] + _PNG_OVERHEAD
    try:
        decompressor = zlib.decompressobj()
        content = decompressor.decompress(base64.b64decode(data, validate=True), most)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise DataError(f"is a bitmap that cannot be decompressed: {error}") from error
    if decompressor.unconsumed_tail or not content.startswith(_PNG_MAGIC) or len(content) < 33:
        raise DataError("is a bitmap that is not a PNG of the size of its image")
    width, height = struct.unpack(">II", content[16:24])
    if not (0 < width <= size[1] and 0 < height <= size[0]):
        raise DataError(
            "is a bitmap larger than its image", found=f"{width} x {height}", expected=f"{size[1]} x {size[0]}"
        )
    with decoder_errors_as_data_errors("bitmap"), Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
        if "A" in picture.getbands():
            return np.asarray(picture.getchannel("A")) > 0
        pixels = np.asarray(picture)  # for a palette these are its indices, of which 0 is clear
    return np.asarray(pixels.reshape(height, width, -1).any(axis=-1))

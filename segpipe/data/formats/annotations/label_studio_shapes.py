"""One region of a Label Studio annotation: polygons, rectangles and ellipses in percent of the image, and brushes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.shapes import Polygons, Runs, Shape, circle, parse_polygon, runs_of_region
from segpipe.errors import DataError

_CHANNELS = 4
_MAX_PERCENT = 1000.0
"""Regions may reach beyond the image; numbers beyond this are not percent."""
_WITHOUT_AREA = ("keypoint", "vector")
_GEOMETRY = ("x", "y", "width", "height", "rotation", "radiusX", "radiusY", "points")


@dataclass(frozen=True)
class Region:
    """A region of an annotation.

    label: its class; None if it has none (the region of a tool without labels, which another entry repeats with its label).
    area: its pixels; None for key points, which have no area.
    key: equal for the entries of one region.
    """

    label: str | None
    area: Shape | None
    key: object


def is_region(entry: dict[str, Any]) -> bool:
    """Return whether an entry of an annotation marks a part of the image; answers about the whole image do not."""
    value = entry.get("value")
    return isinstance(value, dict) and any(name in value for name in ("x", "points", "rle", "imageDataURL", "vertices"))


def parse_region(entry: dict[str, Any], height: int, width: int) -> Region:
    """Return a region of an annotation.

    Args:
        entry: the entry: `value`, `type`, `id`.
        height: of the image in pixels.
        width: of the image in pixels.

    Raises:
        DataError: it is not valid, or of a kind that cannot be read.
    """
    value = entry["value"]
    rotation = entry.get("image_rotation")
    if rotation not in (0, None):
        raise DataError(
            "was drawn on a turned image",
            found=f"image_rotation {rotation}",
            expected="0",
            fix="turn the image back in Label Studio and export again",
        )
    labels = [
        label for name, part in value.items() if name.endswith("labels") and isinstance(part, list) for label in part
    ]
    if len(labels) > 1 or not all(isinstance(label, str) and label.strip() for label in labels):
        raise DataError("has no single label", found=repr(labels)[:60], expected="one label for each region")
    area = _parse_area(str(entry.get("type") or ""), value, height, width)
    key = entry.get("id") or tuple(repr(value.get(name)) for name in _GEOMETRY)
    return Region(labels[0].strip() if labels else None, area, key)


def _parse_area(kind: str, value: dict[str, Any], height: int, width: int) -> Shape | None:
    scale = np.array([width, height]) / 100
    names = [kind.lower(), *(name for name in value if name.endswith("labels"))]
    if any(name.startswith(_WITHOUT_AREA) for name in names):
        return None
    if "rle" in value:
        return decode_brush(value["rle"], height, width)
    if isinstance(value.get("points"), list):
        points = value["points"]
        if not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise DataError("has points that are not pairs", found=repr(points)[:40], expected="[[x, y], ...]")
        return Polygons((_in_percent(parse_polygon([number for point in points for number in point])) * scale,))
    sizes = [("width", "height"), ("radiusX", "radiusY")]
    edges = next((pair for pair in sizes if all(name in value for name in pair)), None)
    numbers = [value.get(name) for name in ("x", "y", *(edges or ()))]
    if edges is None or not all(type(number) in (int, float) for number in numbers):
        raise DataError(
            "is a region of a kind that is not read",
            found=kind or ", ".join(sorted(value))[:60],
            expected="polygons, rectangles, ellipses or brushes",
            fix="export the project as COCO, or as PNG masks of brushes",
        )
    turn = value.get("rotation") or 0
    if type(turn) not in (int, float):
        raise DataError("has no valid rotation", found=repr(turn)[:40], expected="degrees")
    # two points: the upper left corner (or the centre), and the size; the first is repeated so that the checks of a polygon apply
    corner, size, _ = _in_percent(parse_polygon([*numbers, *numbers[:2]])) * scale
    is_box = edges == ("width", "height")
    outline = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) if is_box else circle(0, 0, 1000.0) / 1000
    return Polygons((corner + _turned(outline * size, float(turn)),))


def _in_percent(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return points unchanged. Raises DataError if they cannot be percent of an image."""
    if (abs(points) > _MAX_PERCENT).any():
        raise DataError("has coordinates that are not percent", found=f"{abs(points).max():g}", expected="0 to 100")
    return points


def _turned(outline: npt.NDArray[np.float64], degrees: float) -> npt.NDArray[np.float64]:
    """Return an outline (n, 2) turned clockwise around the origin."""
    angle = np.deg2rad(degrees)
    return outline @ np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])


def decode_brush(raw: object, height: int, width: int) -> Runs:
    """Return the pixels of a brush, whose alpha is not 0.

    The code packs the bytes of an RGBA image, row by row: after a head (number of values, bits of a value, four possible bits of a
    length) come repeated and literal values (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack). No byte of the image is
    allocated before the number of values has been compared with the size of the image.

    Args:
        raw: the list of byte values.
        height: of the image in pixels.
        width: of the image in pixels.

    Raises:
        DataError: the code is broken, or not that of an image of this size.
    """
    if not isinstance(raw, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in raw):
        raise DataError("the brush has no run-length code", found=repr(raw)[:40], expected="a list of bytes")
    bits = _Bits(bytes(raw))
    total = bits.read(32)
    if total != height * width * _CHANNELS:
        raise DataError(
            "the run-length code of the brush is not that of its image",
            found=f"{total} values",
            expected=f"{width} x {height} pixels of {_CHANNELS} values",
        )
    word_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    edges = np.zeros(height * width + 1, np.int8)
    position = 0
    while position < total:
        is_repeated = bits.read(1)
        end = position + 1 + bits.read(length_bits[bits.read(2)])
        if end > total:
            raise DataError("the run-length code of the brush is broken", found=f"more than {total} values")
        for start, stop in [(position, end)] if is_repeated else [(k, k + 1) for k in range(position, end)]:
            if bits.read(word_bits):
                edges[start // _CHANNELS] += 1  # the first pixel whose alpha, its last value, is not before `start`
                edges[stop // _CHANNELS] -= 1
        position = end
    is_set = np.cumsum(edges[:-1], dtype=np.int8).reshape(height, width) > 0
    return runs_of_region(is_set, 0, 0, height, width)


class _Bits:
    """Reads whole numbers from bytes, most significant bit first."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def read(self, n_bits: int) -> int:
        """Return the number in the next bits, at most 32. Raises DataError at the end of the content."""
        end = self._position + n_bits
        if end > 8 * len(self._content):
            raise DataError("the run-length code of the brush is cut short")
        first, last = self._position >> 3, (end + 7) >> 3
        window = int.from_bytes(self._content[first:last], "big")
        self._position = end
        return (window >> (8 * last - end)) & ((1 << n_bits) - 1)

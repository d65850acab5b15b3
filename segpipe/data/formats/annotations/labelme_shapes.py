"""One shape of a labelme or X-AnyLabeling file: outlines, rectangles, circles and small masks, checked before anything is drawn."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.shapes import Polygons, Runs, Shape, circle, parse_polygon, runs_of_region
from segpipe.data.images import decode_mask
from segpipe.data.images.bounds import Bounds
from segpipe.data.images.raster import raster_size
from segpipe.errors import DataError

_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_FOUR_CORNERS = ("rotation", "quadrilateral", "oriented_rectangle")
_KNOWN = "polygon, rectangle, rotation, circle or mask"
_MAX_COORDINATE = 1e7
"""Outlines with larger coordinates are refused before they are drawn."""
_MAX_FLAGS = 20
_MAX_FLAG_LENGTH = 40


@dataclass(frozen=True)
class LabelmeShape:
    """A shape of a labelme file.

    label: its label, without blanks around it.
    area: its pixels; None for lines and points, which have no area.
    flags: the names of its flags that are set, such as `occluded`.
    """

    label: str
    area: Shape | None
    flags: tuple[str, ...] = ()


def parse_labelme_shape(entry: Any, height: int, width: int) -> LabelmeShape:
    """Return an entry of the list `shapes`.

    Args:
        entry: the entry, as JSON data.
        height: of the image in pixels.
        width: of the image in pixels.

    Raises:
        DataError: it is not valid, or of a kind that cannot be read.
    """
    if not isinstance(entry, dict):
        raise DataError("is not a shape", found=repr(entry)[:40])
    label, shape_type, points = entry.get("label"), entry.get("shape_type") or "polygon", entry.get("points")
    if not isinstance(label, str) or not label.strip():
        raise DataError("has no label", found=repr(label)[:40])
    raw_flags = entry.get("flags")
    flags = (
        [str(name)[:_MAX_FLAG_LENGTH] for name, is_set in raw_flags.items() if is_set is True]
        if isinstance(raw_flags, dict)
        else []
    )
    flags += ["difficult"] if entry.get("difficult") is True and "difficult" not in flags else []
    if shape_type in _WITHOUT_AREA:
        return LabelmeShape(label.strip(), None, tuple(flags[:_MAX_FLAGS]))
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise DataError("has points that are not pairs", found=repr(points)[:40], expected="[[x, y], ...]")
    area = _parse_area(entry, shape_type, points, height, width)
    return LabelmeShape(label.strip(), area, tuple(flags[:_MAX_FLAGS]))


def _parse_area(entry: dict[str, Any], shape_type: object, points: list[list[Any]], height: int, width: int) -> Shape:
    flat = [coordinate for point in points for coordinate in point]
    if shape_type == "polygon":
        return Polygons((parse_polygon(flat),))
    if shape_type == "rectangle" and len(points) == 4:
        return Polygons((_rectangle(parse_polygon(flat)),))
    if shape_type in _FOUR_CORNERS and len(points) == 4:
        corners = parse_polygon(flat)
        return Polygons((corners if shape_type == "quadrilateral" else _convex(corners),))
    if shape_type not in ("rectangle", "circle", "mask", *_FOUR_CORNERS):
        raise DataError("has a shape type that is not supported", found=repr(shape_type)[:40], expected=_KNOWN)
    if len(points) != 2 or shape_type in _FOUR_CORNERS:
        expected = "exactly 4 points" if shape_type in _FOUR_CORNERS else "exactly 2 points"
        expected += " or 4" if shape_type == "rectangle" else ""
        raise DataError(f"is a {shape_type} without {expected}", found=len(points))
    # The first point is repeated, so that the checks of a polygon apply to two points.
    (x0, y0), (x1, y1), _ = parse_polygon(flat + flat[:2])
    if shape_type == "circle":
        return Polygons((circle(x0, y0, float(np.hypot(x1 - x0, y1 - y0))),))
    if shape_type == "rectangle":
        return Polygons((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),))
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    return _parse_mask(entry.get("mask"), box, height, width)


def _rectangle(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the outline of a rectangle from its corners in any order; one that is turned is not assumed to be upright."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    upright = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if all((np.abs(upright - corner).max(axis=1) < 1e-3).any() for corner in corners):
        return upright
    return _convex(corners)


def _convex(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the corners of a convex shape in the order of its outline."""
    if (np.ptp(corners, axis=0) < 1e-3).any() or np.abs(corners).max() > _MAX_COORDINATE:
        return corners
    order = cv2.convexHull(corners.astype(np.float32), returnPoints=False).ravel()
    return corners[np.sort(order)] if len(order) < 3 else corners[order]


def _parse_mask(raw: object, box: tuple[float, float, float, float], height: int, width: int) -> Runs:
    """Return the pixels of a mask, a base64 PNG whose upper left pixel is that of its box (left, top, right, bottom).

    labelme writes a mask of (bottom - top + 1) rows and (right - left + 1) columns.
    """
    if not isinstance(raw, str):
        raise DataError("is a mask without pixels", found=repr(raw)[:40], expected="a PNG image in base64 in `mask`")
    try:
        content = base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("the pixels of the mask are not base64") from error
    left, top = int(box[0]), int(box[1])
    rows, columns = int(box[3]) - top + 1, int(box[2]) - left + 1
    size = raster_size(content, "mask", Bounds(math.inf))
    found = f"{size[1]} x {size[0]}"
    if max(abs(size[0] - rows), abs(size[1] - columns)) > 1:
        raise DataError("the mask does not have the size of its box", found=found, expected=f"{columns} x {rows}")
    if size[0] > height + 1 or size[1] > width + 1:  # checked before pixels are decoded
        raise DataError("the mask is larger than its image", found=found, expected=f"at most {width} x {height}")
    is_set = decode_mask(content, "mask", math.inf) > 0
    return runs_of_region(is_set, top, left, height, width)

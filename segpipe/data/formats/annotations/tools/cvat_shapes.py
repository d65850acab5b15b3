"""The shapes of CVAT's XML: polygons, boxes, ellipses and masks."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

import numpy as np

from segpipe.data.formats.annotations.shapes import Shape, parse_polygon, runs_of_region
from segpipe.data.formats.annotations.tools.outlines import box_outline, ellipse_outline, with_holes
from segpipe.errors import DataError

SHAPES = ("polygon", "box", "ellipse", "mask")
"""The tags of shapes that are drawn."""
WITHOUT_AREA = ("polyline", "points", "skeleton", "tag")
"""The tags of what has no area. Others, such as `cuboid`, have one, but are not drawn."""
NOT_DRAWN = "shapes without an area, not drawn ({kind})"


def parse_shape(element: Element, size: tuple[int, int]) -> tuple[Shape, bool]:
    """Return the shape of an element, and whether it reaches beyond the edge of its image.

    Args:
        element: an element with one of the tags in `SHAPES`.
        size: (height, width) of the image in pixels.

    Raises:
        DataError: its numbers are not valid, or it lies outside the image.
    """
    if element.tag == "mask":
        return _mask(element, size), False
    if element.tag == "polygon":
        outline = parse_polygon(_coordinates(element.get("points") or ""))
    elif element.tag == "box":
        left, top, right, bottom = (_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        outline = box_outline(left, top, right, bottom, _number(element, "rotation", 0.0))
    else:
        x, y, radius_x, radius_y = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
        outline = ellipse_outline(x, y, radius_x, radius_y, _number(element, "rotation", 0.0))
    return with_holes([[outline]], *size)


def _coordinates(text: str) -> list[float]:
    """Return the flat list of coordinates of `x,y;x,y;...`."""
    try:
        pairs = [pair.split(",") for pair in text.split(";") if pair.strip()]
        if all(len(pair) == 2 for pair in pairs):
            return [float(number) for pair in pairs for number in pair]
    except ValueError:
        pass
    raise DataError("has points that cannot be read", found=text[:40], expected="x,y;x,y;x,y")


def _mask(element: Element, size: tuple[int, int]) -> Shape:
    """Return a mask: run lengths, row by row in its box, of clear and set pixels in turn, the first ones clear."""
    left, top, width, height = (whole_number(element, key) for key in ("left", "top", "width", "height"))
    if not (0 < width <= size[1] and 0 < height <= size[0]):
        raise DataError(
            "is a mask larger than its image", found=f"{width} x {height}", expected=f"{size[1]} x {size[0]}"
        )
    if left >= size[1] or top >= size[0] or left + width <= 0 or top + height <= 0:
        raise DataError("is a mask outside its image", found=f"left {left}, top {top}")
    try:
        counts = [int(count) for count in (element.get("rle") or "").split(",") if count.strip()]
    except ValueError as error:
        raise DataError("has a run-length code that cannot be read", expected="whole numbers") from error
    area = width * height
    if not counts or min(counts) < 0 or sum(counts) > area:
        raise DataError(
            "has a run-length code that does not fill its box", found=f"{sum(counts)} pixels", expected=f"{area}"
        )
    flags = np.zeros(area, bool)
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    flags[: len(values)] = values
    if not flags.any():
        raise DataError("is a mask without pixels")
    return runs_of_region(flags.reshape(height, width), top, left, *size)


def whole_number(element: Element, key: str) -> int:
    """Return an attribute of an element as a whole number. Raises DataError if it is not one."""
    number = _number(element, key)
    if number != int(number):
        raise DataError(f"has a `{key}` that is not a whole number", found=number)
    return int(number)


def _number(element: Element, key: str, default: float | None = None) -> float:
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > 1e9:
        raise DataError(f"has no valid `{key}`", found=repr(text)[:40], expected="a number")
    return number

"""Outlines of boxes, circles and ellipses as polygons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.shapes import Composite, Polygons, Shape, check_length, reaches_out
from segpipe.errors import DataError

_MAX_RADIUS_PIXELS = 1e6
_MAX_ERROR_PIXELS = 0.01
_MIN_CORNERS = 16


def box_outline(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the corners (4, 2) of a box that is turned about its centre, clockwise as seen on the screen.

    Raises:
        DataError: it has no area, or a number is not finite.
    """
    box = np.array([left, top, right, bottom, degrees], np.float64)
    if not np.isfinite(box).all() or not (right > left and bottom > top):
        raise DataError("is a box without an area", found=f"x {left:g} to {right:g}, y {top:g} to {bottom:g}")
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    return turned(corners, ((left + right) / 2, (top + bottom) / 2), degrees) if degrees else corners


def ellipse_outline(
    x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0
) -> npt.NDArray[np.float64]:
    """Return a polygon (n, 2) that is nowhere more than a hundredth of a pixel inside its ellipse.

    Args:
        x: column of the centre in pixels.
        y: row of the centre in pixels.
        radius_x: half of the width in pixels, before it is turned.
        radius_y: half of the height in pixels.
        degrees: the angle by which it is turned about its centre, clockwise as seen on the screen.

    Raises:
        DataError: a radius is not positive or too large, or a number is not finite.
    """
    if not np.isfinite([x, y, degrees]).all() or not all(0 < r < _MAX_RADIUS_PIXELS for r in (radius_x, radius_y)):
        raise DataError("is an ellipse with an invalid centre or radius", found=f"radii {radius_x:g} and {radius_y:g}")
    largest = max(radius_x, radius_y)
    step = np.arccos(1 - min(0.5, _MAX_ERROR_PIXELS / largest))
    angles = np.linspace(0, 2 * np.pi, max(_MIN_CORNERS, int(np.ceil(np.pi / step))), endpoint=False)
    points = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)
    return turned(points, (x, y), degrees) if degrees else points


def turned(points: npt.NDArray[np.float64], centre: tuple[float, float], degrees: float) -> npt.NDArray[np.float64]:
    """Return points (n, 2) of x, y that are turned about a centre, clockwise as seen on the screen (y points down)."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - centre) @ np.array([[cosine, sine], [-sine, cosine]]) + centre


def with_holes(parts: list[list[npt.NDArray[np.float64]]], height: int, width: int) -> tuple[Shape, bool]:
    """Return the union of parts, each an outline that is followed by the outlines of its holes; and whether it is clipped.

    Raises:
        DataError: it lies outside an image of this size, or is too long to be drawn.
    """
    outer = Polygons(tuple(part[0] for part in parts))
    is_clipped = reaches_out(outer, height, width)
    if holes := tuple(hole for part in parts for hole in part[1:]):
        check_length(Polygons(holes))
    plain = [part[0] for part in parts if len(part) == 1]
    shapes: list[Shape] = [Polygons(tuple(plain))] if plain else []
    shapes += [Composite((Polygons((part[0],)),), (Polygons(tuple(part[1:])),)) for part in parts if len(part) > 1]
    return (shapes[0] if len(shapes) == 1 else Composite(tuple(shapes))), is_clipped

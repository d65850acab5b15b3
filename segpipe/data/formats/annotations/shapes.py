"""The shapes of annotations: polygons and run-length codes, checked before anything is drawn.

Coordinates are continuous, in pixels: x to the right and y down from the corner of the image, so that pixel (row, column) has its
centre at (column + 0.5, row + 0.5). Rasterising follows the COCO reference implementation (faster_coco_eval.core.mask, derived from
https://github.com/cocodataset/cocoapi).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError

_MAX_OUTLINE_PIXELS = 5e6
"""The longest outline that is drawn, in pixels: the rasteriser keeps five points for each pixel."""

_MAX_RADIUS_PIXELS = 1e6

RunCounts = npt.NDArray[np.int64]
"""Lengths of runs of clear and set pixels in turn, the first one clear (possibly of length 0), column by column."""


@dataclass(frozen=True)
class Polygons:
    """The union of one or more outlines, each (n, 2) float64 of x, y with n >= 3."""

    parts: tuple[npt.NDArray[np.float64], ...]

    def scaled(self, width: float, height: float) -> Polygons:
        """Return the same shape with x multiplied by `width` and y by `height`."""
        return Polygons(tuple(part * (width, height) for part in self.parts))


@dataclass(frozen=True)
class Runs:
    """A COCO run-length code for an image of `height` x `width`: the counts, or their compressed string."""

    height: int
    width: int
    code: RunCounts | bytes


@dataclass(frozen=True)
class Composite:
    """The union of some shapes without the pixels of others, such as an outline with holes. `added` has at least one shape."""

    added: tuple[Shape, ...]
    removed: tuple[Shape, ...] = ()


Shape = Polygons | Runs | Composite


def parse_polygon(numbers: object) -> npt.NDArray[np.float64]:
    """Return a flat list x1, y1, x2, y2 ... as (n, 2) float64.

    Raises:
        DataError: it is anything else, or has fewer than three points.
    """
    try:
        flat = np.array(numbers)
    except (ValueError, TypeError) as error:
        raise DataError("the polygon is not a flat list of numbers") from error
    if flat.ndim != 1 or (flat.size and flat.dtype.kind not in "iuf"):
        raise DataError("the polygon is not a flat list of numbers", found=f"{flat.dtype} of shape {flat.shape}")
    if flat.size % 2:
        raise DataError("the polygon has an odd number of coordinates", found=flat.size, expected="pairs of x and y")
    if flat.size < 6:
        raise DataError("the polygon has fewer than 3 points", found=flat.size // 2)
    points = flat.astype(np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise DataError("the polygon has coordinates that are NaN or infinite")
    return points


def parse_runs(size: object, code: object) -> Runs:
    """Return a run-length code of the given size.

    Args:
        size: [height, width] in pixels.
        code: the list of counts, or the compressed string.

    Raises:
        DataError: they are anything else, or the code does not fill the image.
    """
    if not (isinstance(size, list) and len(size) == 2 and all(type(edge) is int and edge > 0 for edge in size)):
        raise DataError("the run-length code has no size", found=size, expected="[height, width]")
    height, width = size
    if isinstance(code, str):
        runs = Runs(height, width, code.encode("utf-8", "replace"))
    elif isinstance(code, list) and all(type(count) is int and 0 <= count <= height * width for count in code):
        runs = Runs(height, width, np.array(code, np.int64))
    else:
        raise DataError("the run-length code is neither a string nor a list of counts", found=type(code).__name__)
    total = int(_decompress(runs).sum())
    if total != height * width:
        raise DataError(
            "the run-length code does not fill its image", found=f"{total} pixels", expected=f"{height} x {width}"
        )
    return runs


def joined(parts: list[Shape]) -> Shape:
    """Return the union of one or more shapes as one shape."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Polygons) for part in parts):
        return Polygons(tuple(outline for part in parts if isinstance(part, Polygons) for outline in part.parts))
    return Composite(tuple(parts))


def circle(x: float, y: float, radius: float) -> npt.NDArray[np.float64]:
    """Return a polygon (n, 2) that is nowhere more than a hundredth of a pixel inside its circle.

    Args:
        x: of the centre, in pixels.
        y: of the centre, in pixels.
        radius: in pixels.

    Raises:
        DataError: the radius is zero, or much larger than any image.
    """
    if not 0 < radius < _MAX_RADIUS_PIXELS:
        raise DataError("is a circle with an invalid radius", found=f"{radius:g}")
    n_corners = max(16, int(np.ceil(np.pi / np.arccos(1 - min(0.5, 0.01 / radius)))))
    angles = np.arange(n_corners) * (2 * np.pi / n_corners)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def lies_outside(shape: Polygons, height: int, width: int) -> bool:
    """Return whether a shape covers no part of an image of this size, because it lies beyond an edge."""
    low = np.min([part.min(axis=0) for part in shape.parts], axis=0)
    high = np.max([part.max(axis=0) for part in shape.parts], axis=0)
    return bool((high <= 0).any() or (low >= (width, height)).any())


def reaches_out(shape: Polygons, height: int, width: int) -> bool:
    """Return whether a shape crosses the edge of its image.

    Raises:
        DataError: the shape lies completely outside the image, or is too long to be drawn.
    """
    low = np.min([part.min(axis=0) for part in shape.parts], axis=0)
    high = np.max([part.max(axis=0) for part in shape.parts], axis=0)
    if (high <= 0).any() or (low >= (width, height)).any():
        raise DataError(
            "lies outside its image",
            found=f"x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}",
            expected=f"something in {width} x {height}",
        )
    check_length(shape)
    return bool((low < 0).any() or (high > (width, height)).any())


def check_length(shape: Polygons) -> None:
    """Check that an outline is not so long that drawing it would take excessive memory.

    Raises:
        DataError: it is.
    """
    with np.errstate(over="ignore"):
        lengths = [np.abs(np.diff(part, axis=0, append=part[:1])).max(axis=1).sum() for part in shape.parts]
    if sum(lengths) > _MAX_OUTLINE_PIXELS:
        raise DataError(
            "the polygon is much too large",
            found=f"an outline of {sum(lengths):.3g} pixels",
            expected=f"at most {_MAX_OUTLINE_PIXELS:g}",
            fix="correct its coordinates",
        )


def rasterise(shape: Shape, height: int, width: int) -> RunCounts:
    """Return the pixels of a shape in an image of this size, as run lengths that fill the image. Polygons are clipped.

    Raises:
        DataError: a run-length code has a different size than its image, or an outline is too long.
    """
    if isinstance(shape, Composite):
        counts = rasterise(shape.added[0], height, width)
        for other in shape.added[1:]:
            counts = _combined(counts, rasterise(other, height, width), np.logical_or)
        for hole in shape.removed:
            counts = _combined(counts, rasterise(hole, height, width), np.greater)
        return counts
    if isinstance(shape, Runs):
        if (shape.height, shape.width) != (height, width):
            raise DataError(
                "the run-length code has a different size than its image",
                found=f"{shape.width} x {shape.height}",
                expected=f"{width} x {height}",
            )
        return _decompress(shape)
    from faster_coco_eval.core import mask

    check_length(shape)
    parts = mask.frPyObjects([part.ravel().tolist() for part in shape.parts], height, width)
    return _decompress(Runs(height, width, mask.merge(parts)["counts"]))


def runs_of_region(is_set: npt.NDArray[np.bool_], top: int, left: int, height: int, width: int) -> Runs:
    """Return the set pixels of a small plane, which is a part of an image, as runs of the whole image.

    Args:
        is_set: the pixels of the part, (h, w).
        top: the row of the image in which the part begins; may be negative, as pixels outside the image are left out.
        left: the column of the image in which it begins; may be negative.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    rows = slice(max(0, -top), max(0, height - top))
    columns = slice(max(0, -left), max(0, width - left))
    part = is_set[rows, columns].T
    top, left = max(0, top), max(0, left)
    edges = np.diff(part.astype(np.int8), axis=1, prepend=0, append=0)
    in_column, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    first = (left + in_column) * height + top
    positions = np.stack([first + starts, first + ends], axis=1).ravel()
    return Runs(height, width, np.diff(positions, prepend=0, append=height * width).astype(np.int64))


def runs_by_value(plane: npt.NDArray[np.int32]) -> dict[int, RunCounts]:
    """Return the pixels of each value of a plane (H, W), as run lengths that fill it, in a single pass over the plane."""
    flat = cv2.transpose(plane).ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(starts, append=flat.size)
    order = np.argsort(flat[starts], kind="stable")
    values, firsts = np.unique(flat[starts][order], return_index=True)
    runs = {}
    for value, indices in zip(values.tolist(), np.split(order, firsts[1:]), strict=True):
        edges = np.stack([starts[indices], starts[indices] + lengths[indices]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size)
        runs[value] = counts if counts[-1] else counts[:-1]
    return runs


def encode_coco_runs(counts: RunCounts, height: int, width: int) -> dict[str, Any]:
    """Return run lengths as entries of a COCO annotation.

    Returns:
        `segmentation` (size, and counts as the compressed string), `area` in pixels, and `bbox` (x, y, width, height).
    """
    from faster_coco_eval.core import mask

    code = mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {
        "segmentation": {"size": [height, width], "counts": code["counts"].decode("ascii")},
        "area": int(counts[1::2].sum()),
        "bbox": [float(edge) for edge in mask.toBbox(code)],
    }


def _decompress(runs: Runs) -> RunCounts:
    if isinstance(runs.code, np.ndarray):
        return runs.code
    from faster_coco_eval import mask_api_new_cpp

    try:
        code = [{"size": [runs.height, runs.width], "counts": runs.code}]
        return np.array(mask_api_new_cpp.toUncompressedRLE(code)[0]["counts"], np.int64)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"the run-length code is broken: {str(error).rstrip('.')}") from error


def _combined(first: RunCounts, second: RunCounts, is_set: np.ufunc) -> RunCounts:
    """Return the pixels for which a function of two flags is true: set in `first`, set in `second`. No plane is allocated."""
    ends = [np.cumsum(counts) for counts in (first, second)]
    edges = np.unique(np.concatenate([[0], *ends]))
    inside = [np.searchsorted(end, edges[:-1], "right") % 2 == 1 for end in ends]
    flags = is_set(*inside)
    changes = edges[1:-1][flags[1:] != flags[:-1]]
    lengths = np.diff(np.concatenate([edges[:1], changes, edges[-1:]]))
    return np.concatenate([[0], lengths]) if flags[0] else lengths

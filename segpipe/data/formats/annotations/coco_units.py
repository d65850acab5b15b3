"""The unit of the coordinates in a COCO file: pixels as COCO has it, or fractions or percent of the image as some tools write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segpipe.errors import DataError

Unit = Literal["pixels", "fractions", "percent"]

UNIT_SIZES: dict[Unit, float] = {"fractions": 1.0, "percent": 100.0}
"""The width and height of an image in each unit other than pixels."""

_MAX_FRACTION = 1.5
"""Polygons whose coordinates are all at most this are fractions of the image: in pixels they would lie in one pixel of its corner."""
_MAX_PERCENT = 101.0
_TOLERANCE_PIXELS = 2.0
"""Boxes are often rounded to whole pixels."""
_MIN_AGREEING = 0.9
_MAX_SMALL_SHARE = 0.01
_MAX_BOX_OF_SMALL = 3.0


def flat_outlines(raw: list[Any]) -> list[list[Any]]:
    """Return the outlines of a `segmentation` as flat lists: [x, y, ...], [[x, y, ...]], [[[x, y], ...]] and [[x, y], ...] alike."""
    if not raw or not isinstance(raw[0], list):
        return [raw]
    if (
        all(isinstance(part, list) and len(part) == 2 and not isinstance(part[0], list) for part in raw)
        and len(raw) > 2
    ):
        return [[number for point in raw for number in point]]
    parts = []
    for part in raw:
        nested = isinstance(part, list) and bool(part) and all(isinstance(point, list) for point in part)
        parts.append([number for point in part for number in point] if nested else part)
    return parts


def find_unit(raw: list[Any], size_of: Callable[[Any], tuple[int, int] | None], where: Path) -> Unit:
    """Return the unit of the polygons of a file, by their largest coordinates and by the boxes beside them.

    Args:
        raw: the list `annotations` of the file.
        size_of: returns (height, width) of an image by its id; None if there is none.
        where: the file, for errors.

    Raises:
        DataError: some polygons are in fractions of the image, and others in pixels.
    """
    small: list[dict[str, Any]] = []
    total = 0
    may_be_percent, has_positive = True, False
    for entry, numbers in _polygons(raw):
        total += 1
        if not any(number > _MAX_FRACTION for number in numbers):
            small.append(entry)
            has_positive = has_positive or any(number > 0 for number in numbers)
        elif may_be_percent:
            may_be_percent = all(number <= _MAX_PERCENT for number in numbers)
    if total and len(small) == total:
        return "fractions" if has_positive else "pixels"
    too_small = [entry for entry in small if _is_larger_by_box(entry)]
    if too_small or len(small) > max(1, _MAX_SMALL_SHARE * total):
        raise DataError(
            "some polygons are in fractions of the image, and others in pixels",
            where=where,
            found=f"{len(small)} of {total} with no coordinate above {_MAX_FRACTION:g}, such as annotation "
            f"{str((too_small or small)[0].get('id'))[:20]}",
            expected="pixels",
            fix="multiply the x of those polygons by the width of the image, and their y by its height",
        )
    return "percent" if total and may_be_percent and _are_percent(raw, size_of) else "pixels"


def _polygons(raw: list[Any]) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Yield the annotations that have polygons, each with all coordinates of them."""
    for entry in raw:
        outlines = entry.get("segmentation") if isinstance(entry, dict) else None
        parts = flat_outlines(outlines) if isinstance(outlines, list) else []
        numbers = [n for part in parts if isinstance(part, list) for n in part if type(n) in (int, float)]
        if numbers:
            yield entry, numbers


def _box(entry: dict[str, Any]) -> np.ndarray | None:
    """Return the box of an annotation as x0, y0, x1, y1; None without one."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(n) in (int, float) for n in box):
        return None
    x, y, width, height = (float(n) for n in box)
    return np.array([x, y, x + width, y + height])


def _is_larger_by_box(entry: dict[str, Any]) -> bool:
    box = _box(entry)
    return box is not None and float(max(box[2] - box[0], box[3] - box[1])) > _MAX_BOX_OF_SMALL


def _are_percent(raw: list[Any], size_of: Callable[[Any], tuple[int, int] | None]) -> bool:
    """Return whether the polygons fit the boxes beside them only if they are percent of the image."""
    votes: Counter[str] = Counter()
    for entry, numbers in _polygons(raw):
        box, size = _box(entry), size_of(entry.get("image_id"))
        if box is None or size is None or len(numbers) % 2:
            continue
        points = np.array(numbers, float).reshape(-1, 2)
        outline = np.concatenate([points.min(axis=0), points.max(axis=0)])
        scale = np.array([size[1], size[0]] * 2) / UNIT_SIZES["percent"]
        if (abs(outline - box) <= _TOLERANCE_PIXELS).all():
            votes["pixels"] += 1
        elif (abs(outline * scale - box) <= _TOLERANCE_PIXELS).all():
            votes["percent"] += 1
        else:
            votes["neither"] += 1
    return votes["percent"] > 0 and votes["percent"] >= _MIN_AGREEING * votes.total()

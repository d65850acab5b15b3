"""The polygons of Cityscapes (`*_polygons.json`) and of datasets in its layout, such as IDD.

Polygons are filled in the order of the file, so that later ones cover earlier ones, as the scripts of Cityscapes do
(https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/preparation/json2labelImg.py). Which pixels a polygon covers
is decided as for all other annotations (`segpipe.data.formats.annotations.shapes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.json_document import read_document
from segpipe.data.formats.annotations.shapes import Polygons, RunCounts, parse_polygon, rasterise
from segpipe.data.formats.source import Drawing
from segpipe.errors import DataError

UNKNOWN = "polygons whose label is no class of Cityscapes, ignored"
DELETED = "polygons that were deleted, left out"
EMPTY = "polygons with fewer than three points or with invalid points, left out"
_MAX_BYTES = 1 << 27
_GROUP = "group"
"""The ending of labels of several instances that could not be separated (`cargroup`)."""
_MAX_INSTANCES = 65535


def read_labels(path: Path) -> set[str]:
    """Return the labels of the polygons of a file that were not deleted.

    Raises:
        DataError: it is not a file of polygons.
    """
    return {label for label, _, deleted in _objects(path) if not deleted}


def base_label(label: str, known: dict[str, int]) -> str:
    """Return a label without the ending for groups, if only without it it is known."""
    return label.removesuffix(_GROUP) if label not in known and label.removesuffix(_GROUP) in known else label


@dataclass(frozen=True)
class PolygonLabels:
    """Draws the labels of one frame from its polygons (a `segpipe.data.formats.source.Draw`).

    polygons: the file.
    values: the file value of each label.
    instances: the labels whose polygons are instances; empty to draw none.
    void: the value of pixels that no polygon covers, and of polygons with an unknown label.
    """

    polygons: Path
    values: tuple[tuple[str, int], ...]
    instances: frozenset[str]
    void: int

    def __call__(self, height: int, width: int) -> Drawing:
        """Return class values and, if there are labels of instances, instance ids, both (height, width).

        Raises:
            DataError: the file is not one of polygons, or is that of an image of another size.
        """
        self._check_size(height, width)
        values, notes = dict(self.values), Counter[str]()
        largest = max([self.void, *values.values()])
        mask = np.full(height * width, self.void, np.uint8 if largest <= 255 else np.uint16)
        instances = np.zeros(height * width, np.uint16)
        number = 0
        for label, points, deleted in _objects(self.polygons):
            if deleted:
                notes[DELETED] += 1
                continue
            runs = _runs(points, height, width)
            if runs is None:
                notes[EMPTY] += 1
                continue
            name = base_label(label, values)
            notes[UNKNOWN] += name not in values
            is_instance = label in self.instances and number < _MAX_INSTANCES
            number += is_instance
            _fill(mask, runs, values.get(name, self.void))
            _fill(instances, runs, number if is_instance else 0)
        planes = [np.ascontiguousarray(plane.reshape(width, height).T) for plane in (mask, instances)]
        return Drawing(planes[0], planes[1] if self.instances else None, +notes)

    def _check_size(self, height: int, width: int) -> None:
        document = read_document(self.polygons, _MAX_BYTES)
        size = document.get("imgHeight", height), document.get("imgWidth", width)
        if size != (height, width):
            raise DataError(
                "the image size differs from that in its annotations",
                where=self.polygons,
                found=f"{width} x {height}",
                expected=f"{size[1]} x {size[0]}",
                fix="restore the original image",
            )


def _objects(path: Path) -> Iterator[tuple[str, Any, bool]]:
    """Yield the label and the points of each polygon, and whether it was deleted."""
    objects = read_document(path, _MAX_BYTES).get("objects")
    if not isinstance(objects, list):
        raise DataError("has no list `objects`", where=path, expected="a file of polygons as Cityscapes has them")
    for entry in objects:
        if isinstance(entry, dict) and isinstance(entry.get("label"), str):
            yield entry["label"].strip(), entry.get("polygon"), bool(entry.get("deleted"))
        else:
            yield "", None, False


def _runs(points: Any, height: int, width: int) -> RunCounts | None:
    """Return the run lengths of a polygon; None if it is no polygon, or has no pixels in the image."""
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    try:
        outline = parse_polygon([coordinate for point in points for coordinate in point])
        runs = rasterise(Polygons((outline,)), height, width)
    except DataError:
        return None
    return runs if runs[1::2].any() else None


def _fill(plane: npt.NDArray[np.generic], runs: RunCounts, value: int) -> None:
    """Set the pixels of run lengths in a plane that is stored column by column."""
    edges = np.cumsum(runs)
    ends = edges[1::2]
    inner = runs[1 : 2 * len(ends)]
    flags = np.repeat(np.arange(len(inner)) % 2 == 0, inner)
    plane[int(edges[0]) : int(ends[-1])][flags] = value

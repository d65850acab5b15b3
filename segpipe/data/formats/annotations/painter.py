"""From annotated objects to the labels of an image: who lies on top, what counts nowhere, what had to be decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.formats.annotations.categories import Numbering
from segpipe.data.formats.annotations.shapes import RunCounts, Polygons, Shape, rasterise
from segpipe.data.formats.source import Drawing
from segpipe.errors import DataError

OVERLAP = "pixels where objects overlap: the smaller object is kept"
HIDDEN = "objects that lie whole behind smaller ones"
EMPTY = "objects that cover no pixel"
CLIPPED = "objects that reach over the edge of their image, clipped"
_MAX_OBJECTS = 65535


@dataclass(frozen=True)
class Annotation:
    """An annotated object: its shape, its category's id, whether its pixels count nowhere, whether it is an object of its own
    (and not a region of stuff such as sky)."""

    shape: Shape
    category: int
    ignored: bool = False
    thing: bool = True


@dataclass(frozen=True)
class Painter:
    """Draws the objects of one image; a `Draw` that can be sent to another process.

    numbering: the file values of categories, of ignored pixels and of the ground.
    size: (height, width) at which the objects were marked; None where their coordinates are shares of the image's edges.
    instances: whether the source has objects at all.
    where: the image, for errors.
    """

    objects: Sequence[Annotation]
    numbering: Numbering
    size: tuple[int, int] | None
    instances: bool
    where: str

    def __call__(self, height: int, width: int) -> Drawing:
        """The labels, (height, width). Raises DataError where the image is of another size than its annotations say."""
        if self.size is not None and self.size != (height, width):
            raise DataError(
                "the image is not of the size that its annotations say", where=self.where, found=f"{width} x {height}",
                expected=f"{self.size[1]} x {self.size[0]}", fix="annotate the image as it is, or restore it",
            )
        things = [marked for marked in self.objects if marked.thing and not marked.ignored]
        if len(things) > _MAX_OBJECTS:
            raise DataError(
                "too many objects in an image", where=self.where, found=len(things), expected=f"at most {_MAX_OBJECTS}"
            )
        canvas = (_SetCanvas if self.numbering.classes.overlapping else _Canvas)(height, width, self.numbering)
        for marked in self.objects:
            if marked.ignored:
                canvas.paint(self._runs(marked, height, width), self.numbering.ignore)
        canvas.clear_coverage()
        numbers = {id(marked): number for number, marked in enumerate(things, start=1)}
        runs = [(marked, self._runs(marked, height, width)) for marked in self.objects if not marked.ignored]
        for marked, counts in sorted(runs, key=lambda pair: -int(pair[1][1::2].sum())):
            canvas.paint(counts, self.numbering.values[marked.category], numbers.get(id(marked), 0))
        return canvas.drawing(self.instances)

    def _runs(self, marked: Annotation, height: int, width: int) -> RunCounts:
        shape = marked.shape
        if self.size is None and isinstance(shape, Polygons):
            shape = shape.scaled(width, height)
        try:
            return rasterise(shape, height, width)
        except DataError as error:
            raise DataError(f"an object cannot be drawn: {error}", where=self.where) from error


class _Canvas:
    """Planes in the order of COCO's runs: down the columns."""

    def __init__(self, height: int, width: int, numbering: Numbering) -> None:
        self.height, self.width, self.numbering = height, width, numbering
        top = max([numbering.ignore, numbering.ground, *numbering.values.values()])
        self.mask = np.full(height * width, numbering.ground, np.uint8 if top <= 255 else np.uint16)
        self.instances = np.zeros(height * width, np.uint16)
        self.covered = np.zeros(height * width, bool)
        self.overlaps = np.zeros(height * width, bool)
        self.painted: set[int] = set()
        self.notes: Counter[str] = Counter()

    def paint(self, counts: RunCounts, value: int, number: int = 0) -> None:
        """Lay an object over what is there."""
        if not counts[1::2].any():
            self.notes[EMPTY] += 1
            return
        here, inside = _places(counts)
        self.overlaps[here][inside] |= self.covered[here][inside]
        self.covered[here][inside] = True
        self.mask[here][inside] = value
        self.instances[here][inside] = number
        if number:
            self.painted.add(number)

    def clear_coverage(self) -> None:
        """Objects may lie on ignored regions: that is no overlap."""
        self.covered[:] = False
        self.overlaps[:] = False

    def drawing(self, with_instances: bool) -> Drawing:
        """What has been painted, row by row again."""
        if overlapped := int(self.overlaps.sum()):
            self.notes[OVERLAP] += overlapped
            seen = set(np.unique(self.instances[self.covered]).tolist())
            if hidden := len(self.painted - seen):
                self.notes[HIDDEN] += hidden
        instances = self._upright(self.instances) if with_instances else None
        return Drawing(self._upright(self.mask), instances, +self.notes)

    def _upright(self, plane: npt.NDArray[np.generic]) -> np.ndarray:
        return cv2.transpose(
            plane.reshape(self.width, self.height)
        )  # by blocks: several times faster than NumPy's copy


class _SetCanvas(_Canvas):
    """Planes of sets of classes: what is painted adds to what is there."""

    def paint(self, counts: RunCounts, value: int, number: int = 0) -> None:
        """Add an object's bit; over pixels that count nowhere, as on the plain canvas, it counts."""
        if not counts[1::2].any():
            self.notes[EMPTY] += 1
            return
        here, inside = _places(counts)
        before: np.ndarray = self.mask[here][inside]
        alone = value == self.numbering.ignore or before == self.numbering.ignore
        self.mask[here][inside] = np.where(alone, value, before | before.dtype.type(value))


def _places(counts: RunCounts) -> tuple[slice, npt.NDArray[np.bool_] | npt.NDArray[np.int64]]:
    """Where runs are set: the stretch from the first to the last, and which of its pixels, as flags or as numbers, whatever takes
    less memory: an object costs its own pixels or its own columns, not the image.
    """
    edges = np.cumsum(counts)
    ends = edges[1::2]
    starts = edges[0::2][: len(ends)]
    lengths, first, last = ends - starts, int(starts[0]), int(ends[-1])
    area = int(lengths.sum())
    if area * lengths.itemsize < last - first:
        before = np.cumsum(lengths) - lengths
        return slice(first, last), np.repeat(starts - first - before, lengths) + np.arange(area)
    inner = counts[1 : 2 * len(ends)]
    return slice(first, last), np.repeat(np.arange(1, len(inner) + 1) % 2 == 1, inner)

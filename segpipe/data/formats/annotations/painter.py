"""Draw annotations as the labels of an image: order of instances, ignored pixels, and a count of the decisions."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.formats.annotations.categories import Numbering
from segpipe.data.formats.annotations.shapes import Polygons, RunCounts, Shape, rasterise
from segpipe.data.formats.mask_labels import TurnedMask
from segpipe.data.formats.source import Drawing
from segpipe.data.images import max_bytes
from segpipe.data.images.bounds import Bounds
from segpipe.data.images.raster import SIDEWAYS, raster_orientation
from segpipe.errors import DataError
from segpipe.files import read_bytes

OVERLAP = "pixels where instances overlap: the smaller instance is kept"
LAYERED = "pixels where instances overlap: the upper one, in the order of the annotations, is kept"
HIDDEN = "instances that are completely covered by smaller ones"
COVERED = "instances that are completely covered by upper ones"
EMPTY = "instances that cover no pixel"
CLIPPED = "instances that reach beyond the edge of their image, clipped"
INCOMPLETE = "images of which annotations are left out: the pixels of these annotations are background"
_MAX_INSTANCES = 65535
_BAND_PIXELS = 1 << 22


@dataclass(frozen=True)
class Annotation:
    """One annotation of an image.

    shape: its outline or run-length code.
    category_id: the id of its category.
    ignored: whether its pixels are ignored.
    is_instance: whether it is an instance, and not a region of something uncountable such as sky.
    layer: instances of higher layers cover those of lower ones; within a layer, smaller ones cover larger ones.
    """

    shape: Shape
    category_id: int
    ignored: bool = False
    is_instance: bool = True
    layer: int = 0


@dataclass(frozen=True)
class Painter:
    """Draws the annotations of one image; a `segpipe.data.formats.source.Draw` that can be sent to another process.

    annotations: the annotations, in the order of the file.
    numbering: the file values of categories, of ignored pixels and of the background.
    size: (height, width) of the annotated image in pixels; None if coordinates are fractions of the image's width and height.
    has_instances: whether the source has any instances.
    where: the image, for errors.
    """

    annotations: Sequence[Annotation]
    numbering: Numbering
    size: tuple[int, int] | None
    has_instances: bool
    where: str

    def __call__(self, height: int, width: int) -> Drawing:
        """Return the labels, (height, width).

        Raises:
            DataError: the image size differs from that in its annotations, or an annotation cannot be drawn.
        """
        if self.size is not None and self.size != (height, width):
            raise DataError(
                "the image size differs from that in its annotations",
                where=self.where,
                found=f"{width} x {height}",
                expected=f"{self.size[1]} x {self.size[0]}",
                fix="annotate the image at its current size, or restore the original image",
            )
        instances = [annotation for annotation in self.annotations if annotation.is_instance and not annotation.ignored]
        if len(instances) > _MAX_INSTANCES:
            raise DataError(
                "too many instances in an image",
                where=self.where,
                found=len(instances),
                expected=f"at most {_MAX_INSTANCES}",
            )
        canvas = (_OverlappingCanvas if self.numbering.classes.overlapping else _Canvas)(height, width, self.numbering)
        for annotation in self.annotations:
            if annotation.ignored:
                canvas.paint(self._runs(annotation, height, width), self.numbering.ignore)
        canvas.clear_coverage()
        instance_ids = {id(annotation): number for number, annotation in enumerate(instances, start=1)}
        runs = [(a, self._runs(a, height, width)) for a in self.annotations if not a.ignored]
        for annotation, counts in sorted(runs, key=lambda pair: (pair[0].layer, -int(pair[1][1::2].sum()))):
            value = self.numbering.values[annotation.category_id]
            canvas.paint(counts, value, instance_ids.get(id(annotation), 0))
        return canvas.drawing(self.has_instances, is_layered=len({a.layer for a, _ in runs}) > 1)

    def _runs(self, annotation: Annotation, height: int, width: int) -> RunCounts:
        shape = annotation.shape
        if self.size is None and isinstance(shape, Polygons):
            shape = shape.scaled(width, height)
        try:
            return rasterise(shape, height, width)
        except DataError as error:
            raise DataError(f"an annotation cannot be drawn: {error}", where=self.where) from error


@dataclass(frozen=True)
class StoredOrientationPainter:
    """Draws annotations whose coordinates may be those of the stored pixels of an image that EXIF turns.

    If the annotated size is that of the stored image, and not that of the image as viewers show it, the labels are turned with the image.

    painter: draws them as they were made.
    image: the image file.
    limits: limits on its size.
    """

    painter: Painter
    image: Path
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return the labels, (height, width). Raises DataError as `Painter`."""
        if height == width or self.painter.size != (width, height):
            return self.painter(height, width)
        orientation = 1
        with contextlib.suppress(DataError):  # an embedded image has no file
            content = read_bytes(self.image, max_bytes(self.limits))
            orientation, _ = raster_orientation(content, str(self.image), Bounds.from_limits(self.limits))
        draw = TurnedMask(self.painter, orientation) if orientation in SIDEWAYS else self.painter
        return draw(height, width)


class _Canvas:
    """Flat planes of pixels in the order of COCO's run-length codes, column by column."""

    def __init__(self, height: int, width: int, numbering: Numbering) -> None:
        self.height, self.width, self.numbering = height, width, numbering
        largest = max([numbering.ignore, numbering.background, *numbering.values.values()])
        self.mask = np.full(height * width, numbering.background, np.uint8 if largest <= 255 else np.uint16)
        self.instances = np.zeros(height * width, np.uint16)
        self.coverage = np.zeros(height * width, np.uint8)
        """The number of annotations that cover a pixel: 0, 1, or 2 for several."""
        self.painted: set[int] = set()
        self.notes: Counter[str] = Counter()

    def paint(self, counts: RunCounts, value: int, instance_id: int = 0) -> None:
        """Paint an annotation over what was painted before; `instance_id` 0 means that it is not an instance."""
        if not counts[1::2].any():
            self.notes[EMPTY] += 1
            return
        span, pixels = _painted_pixels(counts)
        self.coverage[span][pixels] = np.minimum(self.coverage[span][pixels] + 1, 2)
        self.mask[span][pixels] = value
        self.instances[span][pixels] = instance_id
        if instance_id:
            self.painted.add(instance_id)

    def clear_coverage(self) -> None:
        """Reset the record of covered pixels: an instance on an ignored region is not an overlap."""
        self.coverage[:] = 0

    def drawing(self, with_instances: bool, is_layered: bool = False) -> Drawing:
        """Return what has been painted, row by row; `is_layered` says that the annotations have an order."""
        if overlapped := int(np.count_nonzero(self.coverage == 2)):
            self.notes[LAYERED if is_layered else OVERLAP] += overlapped
            if hidden := len(self.painted - self._visible_instances()):
                self.notes[COVERED if is_layered else HIDDEN] += hidden
        del self.coverage  # each plane of a large image is freed as soon as possible
        instances = self._to_rows(self.instances) if with_instances else None
        del self.instances
        return Drawing(self._to_rows(self.mask), instances, +self.notes)

    def _visible_instances(self) -> set[int]:
        """Return the ids of the instances that have pixels on the covered part of the canvas."""
        is_visible = np.zeros(_MAX_INSTANCES + 1, bool)
        for start in range(0, len(self.instances), _BAND_PIXELS):
            band = slice(start, start + _BAND_PIXELS)
            is_visible[self.instances[band][self.coverage[band] > 0]] = True
        return set(np.flatnonzero(is_visible).tolist())

    def _to_rows(self, plane: npt.NDArray[np.generic]) -> np.ndarray:
        # OpenCV transposes by blocks, which is several times faster than NumPy's copy
        return cv2.transpose(plane.reshape(self.width, self.height))


class _OverlappingCanvas(_Canvas):
    """Planes of sets of classes: each annotation adds its bit to those that were painted before."""

    def paint(self, counts: RunCounts, value: int, instance_id: int = 0) -> None:
        """Add the bit of an annotation. As on the plain canvas, it replaces the value of ignored pixels."""
        if not counts[1::2].any():
            self.notes[EMPTY] += 1
            return
        span, pixels = _painted_pixels(counts)
        before: np.ndarray = self.mask[span][pixels]
        replaces = value == self.numbering.ignore or before == self.numbering.ignore
        self.mask[span][pixels] = np.where(replaces, value, before | before.dtype.type(value))


def _painted_pixels(counts: RunCounts) -> tuple[slice, npt.NDArray[np.bool_] | npt.NDArray[np.int64]]:
    """Return the span from the first to the last set pixel of run lengths, and the set pixels in it.

    The set pixels are flags or indices, whichever takes less memory: an instance then costs as much memory as its own pixels or its
    own columns, and not as much as the image.
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

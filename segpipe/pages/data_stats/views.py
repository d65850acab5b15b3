"""Views of a sample: the whole of it, or the part around something; of a volume, slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.drawing import Picture, thumbnail, to_display
from segpipe.labels import Labelling
from segpipe.samples import IGNORE, MAX_CLASSES, Sample

MAX_EDGE = 360
"""Longest edge of a picture, in pixels."""
_MIN_PART_EDGE = 64
"""Edge of the smallest part of an image that is shown, in pixels."""
_GAP = 4
"""Pixels between the slices of a volume."""
_EXCLUSIVE = Labelling(MAX_CLASSES)


@dataclass(frozen=True)
class View:
    """A picture of a sample, with its labels."""

    picture: Picture
    """(h, w, 3), RGB."""
    labels: npt.NDArray[np.uint8]
    """(h, w), class ids; `IGNORE` if a pixel is not labelled."""
    ids: npt.NDArray[np.uint16] | None = None
    """(h, w), instance ids: touching instances of one class get separate outlines."""
    box: tuple[int, int, int, int] | None = None
    """(x, y, width, height) of something that is too small to be found by eye."""


Show = Callable[[Sample], View]
"""Makes the view of a labelled sample."""


def whole(sample: Sample) -> View:
    """Show a whole image; of a volume, the middle slice along each axis, next to each other, at true proportions."""
    assert sample.labels is not None
    if sample.labels.ndim == 2:
        picture = thumbnail(sample.image, MAX_EDGE)
        labels, ids = (_shrink(plane, picture.shape[:2]) for plane in (sample.labels, sample.instances))
        assert labels is not None
        return View(picture, labels, ids)
    middles = [_slice(sample, axis, sample.labels.shape[axis] // 2) for axis in range(3)]
    height = max(view.labels.shape[0] for view in middles)
    picture = np.zeros((height, _GAP * 2 + sum(view.labels.shape[1] for view in middles), 3), np.uint8)
    labels = np.full(picture.shape[:2], IGNORE, np.uint8)
    left = 0
    for view in middles:
        h, w = view.labels.shape
        top = (height - h) // 2
        picture[top : top + h, left : left + w] = view.picture
        labels[top : top + h, left : left + w] = view.labels
        left += w + _GAP
    return View(picture, labels)


def around_class(class_id: int, labelling: Labelling = _EXCLUSIVE) -> Show:
    """Return a function that shows the surroundings of the largest connected region of a class.

    Args:
        class_id: The class.
        labelling: How label values encode classes.

    Returns:
        The function; of a volume it shows the slice with most of the class.
    """

    def show(sample: Sample) -> View:
        assert sample.labels is not None
        return _crop(sample, labelling.where(sample.labels, class_id), largest=True)

    return show


def smallest_instance(sample: Sample) -> View:
    """Show the surroundings of the instance with the fewest pixels."""
    assert sample.instances is not None
    ids, counts = np.unique(sample.instances[sample.instances > 0], return_counts=True)
    return _crop(sample, sample.instances == ids[counts.argmin()], largest=False)


def region_of(pixels: int, labelling: Labelling = _EXCLUSIVE) -> Show:
    """Return a function that shows the surroundings of the connected region whose size is nearest to a number of pixels.

    Args:
        pixels: The size to look for; regions of all classes but the first are considered.
        labelling: How label values encode classes.
    """

    def show(sample: Sample) -> View:
        from scipy import ndimage

        assert sample.labels is not None
        best, region = np.inf, np.ones_like(sample.labels, bool)
        for class_id in np.flatnonzero(labelling.count_pixels(sample.labels)[1:]) + 1:
            mask = labelling.where(sample.labels, int(class_id))
            regions, _ = ndimage.label(mask, np.ones((3,) * sample.labels.ndim))
            sizes = np.bincount(regions.ravel())[1:]
            nearest = int(np.abs(sizes - pixels).argmin())
            if abs(sizes[nearest] - pixels) < best:
                best, region = abs(sizes[nearest] - pixels), regions == nearest + 1
        return _crop(sample, region, largest=False)

    return show


def _slice(sample: Sample, axis: int, index: int) -> View:
    """Show one slice of a volume: intensities are stretched to the visible range, pixels resampled to equal edges in mm."""
    assert sample.labels is not None
    picture = to_display(np.take(sample.image, index, axis).astype(np.float32))
    labels: npt.NDArray[np.uint8] = np.take(sample.labels, index, axis)
    if sample.spacing:
        tall, wide = (mm for other_axis, mm in enumerate(sample.spacing) if other_axis != axis)
        finest = min(tall, wide)
        height, width = labels.shape[:2]
        size = (round(width * wide / finest), round(height * tall / finest))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return View(picture, labels)


def _crop(sample: Sample, mask: npt.NDArray[np.bool_], largest: bool) -> View:
    """Show a square part of an image around a mask, twice as large as the mask and inside the image.

    Of a volume, the slice with most of the mask is shown. largest: only the largest connected region of the mask counts, and no
    box is drawn around it.
    """
    image, labels, ids = sample.image, sample.labels, sample.instances
    assert labels is not None
    if mask.ndim == 3:
        index = int(mask.sum((1, 2)).argmax())
        image, labels, ids, mask = image[index].astype(np.float32), labels[index], None, mask[index]
    flat = mask.astype(np.uint8)
    if largest:
        _, _, components, _ = cv2.connectedComponentsWithStats(flat)
        x, y, w, h = components[1 + int(components[1:, cv2.CC_STAT_AREA].argmax()), :4].tolist()
    else:
        x, y, w, h = cv2.boundingRect(flat)
    edge = max(2 * max(w, h), _MIN_PART_EDGE)
    top, bottom = _span(y + h / 2, edge, mask.shape[0])
    left, right = _span(x + w / 2, edge, mask.shape[1])
    part = (slice(top, bottom), slice(left, right))
    box = None if largest else (x - left, y - top, w, h)
    return View(to_display(image[part]), labels[part], None if ids is None else ids[part], box)


def _shrink(plane: np.ndarray | None, shape: Sequence[int]) -> np.ndarray | None:
    return None if plane is None else cv2.resize(plane, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)


def _span(middle: float, edge: int, length: int) -> tuple[int, int]:
    """Return the start and the end of `edge` pixels around `middle`, moved or cut so that they lie within 0 and `length`."""
    edge = min(edge, length)
    start = min(max(round(middle - edge / 2), 0), length - edge)
    return start, start + edge

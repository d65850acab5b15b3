"""What of a sample is shown: the whole of it, or the part around something; of a volume, slices."""

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
_LEAST = 64
"""Edge of the smallest part that is shown, in pixels."""
_GAP = 4
_EXCLUSIVE = Labelling(MAX_CLASSES)


@dataclass(frozen=True)
class View:
    """A picture (h, w, 3), RGB, and the class ids (h, w) of its pixels, `IGNORE` where nothing is labelled."""

    picture: Picture
    labels: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.uint16] | None = None
    """(h, w), object ids: objects of one class that touch are outlined apart."""
    box: tuple[int, int, int, int] | None = None
    """x, y, width, height of what is too small to be found by eye."""


Show = Callable[[Sample], View]
"""How to look at a sample. It has labels."""


def whole(sample: Sample) -> View:
    """An image as it is; of a volume the middle slice along each axis, side by side, at true proportions."""
    assert sample.labels is not None
    if sample.labels.ndim == 2:
        picture = thumbnail(sample.image, MAX_EDGE)
        labels, ids = (_shrunk(plane, picture.shape[:2]) for plane in (sample.labels, sample.instances))
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
    """The surroundings of the largest connected region of a class; of a volume, in the slice that holds most of it."""

    def show(sample: Sample) -> View:
        assert sample.labels is not None
        return _crop(sample, labelling.where(sample.labels, class_id), largest=True)

    return show


def smallest_instance(sample: Sample) -> View:
    """The surroundings of the object with the fewest pixels."""
    assert sample.instances is not None
    ids, counts = np.unique(sample.instances[sample.instances > 0], return_counts=True)
    return _crop(sample, sample.instances == ids[counts.argmin()], largest=False)


def region_of(pixels: int, labelling: Labelling = _EXCLUSIVE) -> Show:
    """The surroundings of the connected region, of whatever class but the first, whose size is nearest to `pixels`."""

    def show(sample: Sample) -> View:
        from scipy import ndimage

        assert sample.labels is not None
        best, found = np.inf, sample.labels == sample.labels
        for class_id in np.flatnonzero(labelling.pixels(sample.labels)[1:]) + 1:
            own = labelling.where(sample.labels, int(class_id))
            regions, _ = ndimage.label(own, np.ones((3,) * sample.labels.ndim))
            sizes = np.bincount(regions.ravel())[1:]
            nearest = int(np.abs(sizes - pixels).argmin())
            if abs(sizes[nearest] - pixels) < best:
                best, found = abs(sizes[nearest] - pixels), regions == nearest + 1
        return _crop(sample, found, largest=False)

    return show


def _slice(sample: Sample, axis: int, place: int) -> View:
    """One slice of a volume, its values stretched to what can be seen, its pixels brought to equal edges in mm."""
    assert sample.labels is not None
    picture = to_display(np.take(sample.image, place, axis).astype(np.float32))
    labels: npt.NDArray[np.uint8] = np.take(sample.labels, place, axis)
    if sample.spacing:
        tall, wide = (mm for index, mm in enumerate(sample.spacing) if index != axis)
        finest = min(tall, wide)
        height, width = labels.shape[:2]
        size = (round(width * wide / finest), round(height * tall / finest))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
    return View(picture, labels)


def _crop(sample: Sample, mask: npt.NDArray[np.bool_], largest: bool) -> View:
    """A square around a mask (or its largest connected region), with as much again around it, inside the image; of a volume,
    in the slice that holds most of it.
    """
    image, labels, ids = sample.image, sample.labels, sample.instances
    assert labels is not None
    if mask.ndim == 3:
        place = int(mask.sum((1, 2)).argmax())
        image, labels, ids, mask = image[place].astype(np.float32), labels[place], None, mask[place]
    flat = mask.astype(np.uint8)
    if largest:
        _, _, stats, _ = cv2.connectedComponentsWithStats(flat)
        x, y, w, h = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), :4].tolist()
    else:
        x, y, w, h = cv2.boundingRect(flat)
    edge = max(2 * max(w, h), _LEAST)
    top, bottom = _within(y + h / 2, edge, mask.shape[0])
    left, right = _within(x + w / 2, edge, mask.shape[1])
    part = (slice(top, bottom), slice(left, right))
    box = None if largest else (x - left, y - top, w, h)
    return View(to_display(image[part]), labels[part], None if ids is None else ids[part], box)


def _shrunk(plane: np.ndarray | None, shape: Sequence[int]) -> np.ndarray | None:
    return None if plane is None else cv2.resize(plane, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)


def _within(middle: float, edge: int, length: int) -> tuple[int, int]:
    """`edge` pixels around `middle` that lie in 0 .. length, moved or cut where they would not."""
    edge = min(edge, length)
    start = min(max(round(middle - edge / 2), 0), length - edge)
    return start, start + edge

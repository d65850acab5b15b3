"""What of a sample is shown: the whole of it, or the part around something; of a volume, slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.drawing import Picture, to_display
from segpipe.samples import IGNORE, Sample

_LEAST = 64
"""Edge of the smallest part that is shown, in pixels."""
_GAP = 4


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
        return _plane(sample, None)
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


def around_class(class_id: int) -> Show:
    """The surroundings of the largest connected region of a class; of a volume, in the slice that holds most of it."""

    def show(sample: Sample) -> View:
        assert sample.labels is not None
        mask = sample.labels == class_id
        place = int(mask.sum((1, 2)).argmax()) if mask.ndim == 3 else None
        return _crop(_plane(sample, place), mask if place is None else mask[place], largest=True)

    return show


def smallest_object(sample: Sample) -> View:
    """The surroundings of the object with the fewest pixels."""
    assert sample.instances is not None
    ids, counts = np.unique(sample.instances[sample.instances > 0], return_counts=True)
    return _around(sample, sample.instances == ids[counts.argmin()])


def region_of(pixels: int) -> Show:
    """The surroundings of the connected region, of whatever class but the first, whose size is nearest to `pixels`."""

    def show(sample: Sample) -> View:
        from scipy import ndimage

        assert sample.labels is not None
        best, found = np.inf, sample.labels == sample.labels
        for class_id in np.unique(sample.labels[(sample.labels > 0) & (sample.labels != IGNORE)]):
            regions, _ = ndimage.label(sample.labels == class_id, np.ones((3,) * sample.labels.ndim))
            sizes = np.bincount(regions.ravel())[1:]
            nearest = int(np.abs(sizes - pixels).argmin())
            if abs(sizes[nearest] - pixels) < best:
                best, found = abs(sizes[nearest] - pixels), regions == nearest + 1
        return _around(sample, found)

    return show


def _around(sample: Sample, mask: npt.NDArray[np.bool_]) -> View:
    """The surroundings of a mask, (H, W) or (D, H, W)."""
    place = int(mask.sum((1, 2)).argmax()) if mask.ndim == 3 else None
    return _crop(_plane(sample, place), mask if place is None else mask[place], largest=False)


def _plane(sample: Sample, place: int | None) -> View:
    assert sample.labels is not None
    if place is not None:
        return _slice(sample, 0, place, square=False)
    return View(to_display(sample.image), sample.labels, sample.instances)


def _slice(sample: Sample, axis: int, place: int, square: bool = True) -> View:
    """One slice of a volume, its values stretched to what can be seen; `square` gives its pixels equal edges in mm."""
    assert sample.labels is not None
    picture = to_display(np.take(sample.image, place, axis).astype(np.float32))
    labels: npt.NDArray[np.uint8] = np.take(sample.labels, place, axis)
    if square and sample.spacing:
        tall, wide = (mm for index, mm in enumerate(sample.spacing) if index != axis)
        finest = min(tall, wide)
        height, width = labels.shape[:2]
        size = (round(width * wide / finest), round(height * tall / finest))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
    return View(picture, labels)


def _crop(view: View, mask: npt.NDArray[np.bool_], largest: bool) -> View:
    """A square around a mask (or its largest connected region), with as much again around it, inside the image."""
    flat = mask.astype(np.uint8)
    if largest:
        _, _, stats, _ = cv2.connectedComponentsWithStats(flat)
        x, y, w, h = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), :4].tolist()
    else:
        x, y, w, h = cv2.boundingRect(flat)
    edge = max(2 * max(w, h), _LEAST)
    top, bottom = _within(y + h / 2, edge, mask.shape[0])
    left, right = _within(x + w / 2, edge, mask.shape[1])
    box = None if largest else (x - left, y - top, w, h)
    ids = None if view.ids is None else view.ids[top:bottom, left:right]
    return View(view.picture[top:bottom, left:right], view.labels[top:bottom, left:right], ids, box)


def _within(middle: float, edge: int, length: int) -> tuple[int, int]:
    """`edge` pixels around `middle` that lie in 0 .. length, moved or cut where they would not."""
    edge = min(edge, length)
    start = min(max(round(middle - edge / 2), 0), length - edge)
    return start, start + edge

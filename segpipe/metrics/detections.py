"""COCO mask AP of any resample of images: what each detection matches is found once, image by image, and then only counted.

AP is no mean over images: detections of all images are put in one order, the surest first. But an image that is drawn twice
brings each of its detections and true objects twice, and an image that is left out brings none; matches stay as they are, since
they are made within an image. So AP of a resample follows from how often each image was drawn (`average_precision`), as a
score of summed counts does. For images drawn once it is the AP of `segpipe.metrics.average_precision`, which a test holds it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.metrics.counting import Values
from segpipe.metrics.instances import InstanceMasks, Mask, Overlaps, overlaps

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The ten IoU at which detections match, to the last bit as COCO has them."""

ANY_SIZE = (0.0, np.inf)

_BITS = 1 << np.arange(len(COCO_THRESHOLDS))
_RECALLS = np.linspace(0.0, 1.0, 101)
_VALUES = 1 << 18
"""Detections times resamples that are looked at at once: 2 MiB, which stays in the processor's cache."""


@dataclass(frozen=True)
class Detections:
    """Predicted objects, the surest first, with what they match.

    scores: (n,). classes: (n,), class ids. hits, ignored: (n, 10), bool: whether it matches a true object at each of
    `COCO_THRESHOLDS`, and whether it counts neither for nor against, since it lies on ignored pixels.
    """

    scores: Values
    classes: npt.NDArray[np.int64]
    hits: Mask
    ignored: Mask

    def __len__(self) -> int:
        return len(self.scores)

    def packed(self) -> npt.NDArray[np.int64]:
        """(n,): all but the scores in a number each: ten bits of what matches, ten of what is ignored, then the class."""
        hits, ignored = (bits @ _BITS for bits in (self.hits, self.ignored))
        return np.asarray(hits + (ignored << len(_BITS)) + (self.classes << 2 * len(_BITS)), np.int64)

    @classmethod
    def unpacked(cls, scores: Sequence[float] | None, packed: Sequence[int] | None) -> Detections | None:
        """From scores and what `packed` gave; None where either is."""
        if scores is None or packed is None:
            return None
        number = np.array(packed, np.int64)
        hits, ignored = ((number[:, None] >> shift & _BITS) > 0 for shift in (0, len(_BITS)))
        return cls(np.array(scores, np.float64), number >> 2 * len(_BITS), hits, ignored)


def match_detections(truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None = None) -> Detections:
    """Match an image's predictions as COCO does: the surest first, each with the best true object of its class that is free and has at
    least the threshold's IoU. ignored: (*shape,), bool; a prediction that matches nothing and lies there for a share of at least
    the threshold is ignored (COCO's crowd).
    """
    return match_detections_by_size(truth, prediction, ignored, [ANY_SIZE])[0]


def match_detections_by_size(
    truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None, sizes: Sequence[tuple[float, float]]
) -> list[Detections]:
    """`detect`, once for each range of sizes: (least, most) pixels, both included.

    A true object outside of the range is there to be matched by what matches none inside, which is then ignored; so is a prediction
    outside of the range that matches nothing.
    """
    order = np.argsort(-prediction.scores, kind="stable")
    found = overlaps(truth, prediction)
    found = Overlaps(found.true, np.argsort(order)[found.said], found.iou)
    area, lost = prediction.area[order], np.zeros(len(prediction))
    if ignored is not None and ignored.any():
        lost = _pixels_on(prediction, ignored)[order] / np.maximum(area, 1)
    hits, let_off = np.zeros((2, len(sizes), len(prediction), len(COCO_THRESHOLDS)), np.bool_)
    for place, threshold in enumerate(COCO_THRESHOLDS):
        near = found.only(found.iou >= threshold)
        for number, size in enumerate(sizes):
            hit, off = _greedy(near, ~_within(truth.area, size), np.where(lost >= threshold, lost, 0.0))
            hits[number, :, place], let_off[number, :, place] = hit, ~hit & (off | ~_within(area, size))
    scores, classes = prediction.scores[order].astype(np.float64), prediction.classes[order]
    return [Detections(scores, classes, *both) for both in zip(hits, let_off, strict=True)]


def _within(area: npt.NDArray[np.int64], size: tuple[float, float]) -> Mask:
    return np.asarray((area >= size[0]) & (area <= size[1]))


def _greedy(near: Overlaps, spared: Mask, crowd: Values) -> tuple[Mask, Mask]:
    """Which predictions match a true object, and which one that is spared or the crowd: each (predicted,), bool.

    near: pairs that may match, predictions numbered with the surest first. spared: (true,), bool. crowd: (predicted,), the share
    that lies on ignored pixels where that is enough, else 0; any number of predictions may match it.
    """
    hit, off = np.zeros(len(crowd), np.bool_), crowd > 0
    alone = near.alone()
    hit[near.said[alone & ~spared[near.true]]] = True
    off[near.said[alone & spared[near.true]]] = True
    taken = np.zeros(len(spared), np.bool_)
    several = near.only(~alone)
    rows = np.argsort(several.said, kind="stable")
    for pairs in np.split(rows, np.flatnonzero(np.diff(several.said[rows])) + 1):
        open_ones = [(several.iou[k], several.true[k]) for k in pairs if not taken[several.true[k]]]
        counted = [pair for pair in open_ones if not spared[pair[1]]]
        if not (counted or open_ones):
            continue
        said = several.said[pairs[0]]
        iou, true = max(counted or open_ones)  # of equal ones COCO takes the last
        hit[said] = bool(counted)
        off[said] |= not counted
        taken[true] = bool(counted) or iou > crowd[said]
    return hit, off


def _pixels_on(objects: InstanceMasks, ignored: Mask) -> npt.NDArray[np.int64]:
    if objects.overlapping:
        return np.array([np.count_nonzero(mask & ignored) for mask in objects.pixels], np.int64)
    return np.bincount(objects.pixels[ignored], minlength=len(objects) + 1)[1:]


@dataclass(frozen=True)
class PooledDetections:
    """The detections of many images in one order, the surest first (of equal ones, in the order of the images).

    found: of all images. image: (n,), the place of each detection's image. true: (images, n_classes), true objects.
    """

    found: Detections
    image: npt.NDArray[np.int64]
    true: Values

    @classmethod
    def of(cls, images: Sequence[Detections], true: npt.NDArray[np.number]) -> PooledDetections:  # type: ignore[type-arg]
        """Of the detections of images, and their true objects, (images, n_classes)."""
        image = np.repeat(np.arange(len(images)), [len(one) for one in images])
        return cls._ordered(images, image, image, np.asarray(true, np.float64))

    @classmethod
    def _ordered(
        cls, parts: Sequence[Detections], image: npt.NDArray[np.int64], place: npt.NDArray[np.int64], true: Values
    ) -> PooledDetections:
        """place: (n,), by which equally sure ones are put in order."""
        nothing = Detections(np.empty(0), np.empty(0, np.int64), *np.empty((2, 0, len(COCO_THRESHOLDS)), np.bool_))
        scores, classes, hits, ignored = (
            np.concatenate([getattr(one, name) for one in (nothing, *parts)])
            for name in ("scores", "classes", "hits", "ignored")
        )
        order = np.lexsort((place, -scores))
        return cls(Detections(scores[order], classes[order], hits[order], ignored[order]), image[order], true)

    def beside(self, other: PooledDetections) -> PooledDetections:
        """All detections of both in one order, from the same images: those of `other` are numbered after these, but of equally sure
        ones those of the earlier image come first, whoever found them."""
        image, place = (np.concatenate([self.image, other.image + after]) for after in (len(self.true), 0))
        return self._ordered([self.found, other.found], image, place, np.concatenate([self.true, other.true]))

    def of_class(self, label: int) -> PooledDetections:
        """What is of one class."""
        own = self.found.classes == label
        found = Detections(
            self.found.scores[own], self.found.classes[own], self.found.hits[own], self.found.ignored[own]
        )
        return PooledDetections(found, self.image[own], self.true[:, label : label + 1])


def average_precision(pools: Sequence[PooledDetections], weights: Values, thresholds: Sequence[int]) -> Values:
    """COCO AP where each image counts as often as it was drawn: (resamples,).

    Copies of a detection stand together, also where others are as sure. pools: of each class that counts, from `Pool.of_class`.
    weights: (resamples, images), whole numbers. thresholds: places in `COCO_THRESHOLDS` over which the mean is taken. NaN where no
    class has a true object; one that has none is left out.
    """
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for pool in pools:
        true = weights @ pool.true[:, 0]
        rows = max(1, _VALUES // max(1, len(pool.found)))
        for start in range(0, len(weights), rows):
            part = slice(start, start + rows)
            total[part] += np.where(true[part] > 0, _of_class(pool, weights[part], true[part], thresholds), 0.0)
        count += true > 0
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def _of_class(pool: PooledDetections, weights: Values, true: Values, thresholds: Sequence[int]) -> Values:
    """Precision is looked at where a detection hits at any threshold: elsewhere it only falls."""
    hits, ignored = pool.found.hits[:, thresholds], pool.found.ignored[:, thresholds]
    at = np.flatnonzero(hits.any(1))
    total, needed = np.zeros(len(weights)), _hits_for(true)
    if not len(at):
        return total
    drawn = weights[:, pool.image]
    seen, own = drawn.cumsum(1)[:, at], drawn[:, at]
    share = 1 / np.maximum(seen, 1)
    for place in range(len(thresholds)):
        right = (own * hits[at, place]).cumsum(1)
        own_share = share
        if ignored[:, place].any():
            own_share = 1 / np.maximum(seen - (drawn * ignored[:, place]).cumsum(1)[:, at], 1)
        total += _at_recalls(right * own_share, right, needed)
    return total / len(thresholds)


def _hits_for(true: Values) -> Values:
    """(resamples, 101): the fewest hits with which each recall is reached, by the same division as COCO's."""
    true = np.maximum(true, 1)[:, None]
    needed = np.ceil(_RECALLS * true)
    needed = np.where((needed - 1) / true >= _RECALLS, needed - 1, needed)
    return np.where(needed / true < _RECALLS, needed + 1, needed)


def _at_recalls(precision: Values, right: Values, needed: Values) -> Values:
    """(resamples,): the mean over recalls of the best precision (resamples, detections) from where a recall is reached on; 0 where it
    is not. right: hits so far.

    One search serves all rows: each row's counts, which never fall, are raised above those of the row before. Of each stretch
    between two recalls the best is taken, then from the last stretch backwards; the first recall, 0, starts at the first place.
    """
    rows, last = right.shape[0], right.shape[1] - 1
    row = np.arange(rows)[:, None]
    raised = row * (max(float(right.max()), float(needed.max())) + 1)
    place = np.searchsorted((right + raised).ravel(), (needed + raised).ravel()).reshape(needed.shape) - row * (
        last + 1
    )
    reached = place <= last
    starts = np.minimum(place, last) + row * (last + 1)
    best = np.maximum.reduceat(precision.ravel(), starts.ravel()).reshape(needed.shape)
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    return np.where(reached, best, 0.0).mean(1)

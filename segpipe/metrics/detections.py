"""COCO mask AP of any resample of images: each detection is matched once, image by image, and then only counted.

AP is not a mean over images: the detections of all images are sorted together, by falling confidence. But an image that is drawn
twice contributes each of its detections and true instances twice, and an image that is not drawn contributes none; the matches stay
the same, since detections are matched within an image. Therefore AP of a resample follows from how often each image was drawn
(`average_precision`), as a score of summed counts does. For images drawn once it is the AP of `segpipe.metrics.average_precision`; a
test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.metrics.counting import Values
from segpipe.metrics.instances import InstanceMasks, Mask, Overlaps, overlaps

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The ten IoU thresholds of COCO, equal to its own to the last bit."""

ANY_SIZE = (0.0, np.inf)

_BITS = 1 << np.arange(len(COCO_THRESHOLDS))
_RECALLS = np.linspace(0.0, 1.0, 101)
_MAX_VALUES = 1 << 18
"""Detections times resamples that are processed at once: 2 MiB, which stays in the processor's cache."""


@dataclass(frozen=True)
class Detections:
    """Predicted instances by falling confidence, with their matches.

    Attributes:
        scores: (n,), confidences.
        classes: (n,), class ids.
        hits: (n, 10), bool: whether the detection matches a true instance at each of `COCO_THRESHOLDS`.
        ignored: (n, 10), bool: whether it counts neither for nor against the model, since it lies on ignored pixels.
    """

    scores: Values
    classes: npt.NDArray[np.int64]
    hits: Mask
    ignored: Mask

    def __len__(self) -> int:
        return len(self.scores)

    def packed(self) -> npt.NDArray[np.int64]:
        """Pack all but the scores into one number per detection, (n,): ten bits of `hits`, ten of `ignored`, then the class."""
        hits, ignored = (bits @ _BITS for bits in (self.hits, self.ignored))
        return np.asarray(hits + (ignored << len(_BITS)) + (self.classes << 2 * len(_BITS)), np.int64)

    @classmethod
    def unpacked(cls, scores: Sequence[float] | None, packed: Sequence[int] | None) -> Detections | None:
        """Restore detections from their scores and from what `packed` returned; None if either is None."""
        if scores is None or packed is None:
            return None
        number = np.array(packed, np.int64)
        hits, ignored = ((number[:, None] >> shift & _BITS) > 0 for shift in (0, len(_BITS)))
        return cls(np.array(scores, np.float64), number >> 2 * len(_BITS), hits, ignored)


def match_detections(truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None = None) -> Detections:
    """Match the predictions of one image as COCO does.

    By falling confidence, each prediction is matched with the true instance of its class that has the largest IoU, among those that
    are still free and reach the threshold.

    Args:
        truth: the true instances.
        prediction: the predicted instances.
        ignored: bool, shaped as the image. A prediction without a match that lies on these pixels for at least the threshold's share
            of its area is ignored (COCO's crowd).
    """
    return match_detections_by_size(truth, prediction, ignored, [ANY_SIZE])[0]


def match_detections_by_size(
    truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None, sizes: Sequence[tuple[float, float]]
) -> list[Detections]:
    """Match the predictions of one image, once for each range of sizes.

    True instances outside of the range can be matched by predictions that match none inside, which are then ignored. So are
    predictions outside of the range without a match.

    Args:
        truth: the true instances.
        prediction: the predicted instances.
        ignored: as in `match_detections`.
        sizes: (smallest, largest) area in pixels of each range, both included.

    Returns:
        The detections for each range.

    Raises:
        ValueError: truth and prediction have different shapes.
    """
    order = np.argsort(-prediction.scores, kind="stable")
    pairs = overlaps(truth, prediction)
    pairs = Overlaps(pairs.true, np.argsort(order)[pairs.predicted], pairs.iou)
    area, crowd_share = prediction.area[order], np.zeros(len(prediction))
    if ignored is not None and ignored.any():
        crowd_share = _pixels_on(prediction, ignored)[order] / np.maximum(area, 1)
    hits, let_off = np.zeros((2, len(sizes), len(prediction), len(COCO_THRESHOLDS)), np.bool_)
    for index, threshold in enumerate(COCO_THRESHOLDS):
        near = pairs.only(pairs.iou >= threshold)
        crowd = np.where(crowd_share >= threshold, crowd_share, 0.0)
        for range_index, size in enumerate(sizes):
            hit, off = _match_greedily(near, ~_within(truth.area, size), crowd)
            hits[range_index, :, index], let_off[range_index, :, index] = hit, ~hit & (off | ~_within(area, size))
    scores, classes = prediction.scores[order].astype(np.float64), prediction.classes[order]
    return [Detections(scores, classes, *both) for both in zip(hits, let_off, strict=True)]


def _within(area: npt.NDArray[np.int64], size: tuple[float, float]) -> Mask:
    return np.asarray((area >= size[0]) & (area <= size[1]))


def _match_greedily(near: Overlaps, spared: Mask, crowd: Values) -> tuple[Mask, Mask]:
    """Match predictions with true instances at one threshold.

    Args:
        near: the pairs that may match, with predictions numbered by falling confidence.
        spared: (true,), bool, true instances outside of the range of sizes.
        crowd: (predicted,), the share of the area that lies on ignored pixels if it is large enough, else 0. Any number of
            predictions may match the crowd.

    Returns:
        Two masks, (predicted,): predictions that match a true instance, and those that match a spared one or the crowd.
    """
    hit, off = np.zeros(len(crowd), np.bool_), crowd > 0
    alone = near.alone()
    hit[near.predicted[alone & ~spared[near.true]]] = True
    off[near.predicted[alone & spared[near.true]]] = True
    taken = np.zeros(len(spared), np.bool_)
    several = near.only(~alone)
    rows = np.argsort(several.predicted, kind="stable")
    for pairs in np.split(rows, np.flatnonzero(np.diff(several.predicted[rows])) + 1):
        free = [(several.iou[k], several.true[k]) for k in pairs if not taken[several.true[k]]]
        counted = [pair for pair in free if not spared[pair[1]]]
        if not free:
            continue
        predicted = several.predicted[pairs[0]]
        iou, true = max(counted or free)  # of equal ones COCO takes the last
        hit[predicted] = bool(counted)
        off[predicted] |= not counted
        taken[true] = bool(counted) or iou > crowd[predicted]
    return hit, off


def _pixels_on(instances: InstanceMasks, ignored: Mask) -> npt.NDArray[np.int64]:
    """Count the pixels of each instance that are ignored."""
    if instances.overlapping:
        return np.array([np.count_nonzero(mask & ignored) for mask in instances.pixels], np.int64)
    return np.bincount(instances.pixels[ignored], minlength=len(instances) + 1)[1:]


@dataclass(frozen=True)
class PooledDetections:
    """The detections of many images by falling confidence; equally confident ones are in the order of the images.

    Attributes:
        detections: of all images.
        image: (n,), the index of each detection's image.
        true: (images, n_classes), the numbers of true instances.
    """

    detections: Detections
    image: npt.NDArray[np.int64]
    true: Values

    @classmethod
    def from_images(cls, images: Sequence[Detections], true: npt.NDArray[np.number[Any]]) -> PooledDetections:
        """Pool the detections of images.

        Args:
            images: the detections of each image.
            true: (images, n_classes), the numbers of true instances.
        """
        image = np.repeat(np.arange(len(images)), [len(detections) for detections in images])
        return cls._sorted(images, image, image, np.asarray(true, np.float64))

    @classmethod
    def _sorted(
        cls, parts: Sequence[Detections], image: npt.NDArray[np.int64], tie_break: npt.NDArray[np.int64], true: Values
    ) -> PooledDetections:
        """Pool detections by falling confidence. tie_break: (n,), the order of equally confident detections."""
        nothing = Detections(np.empty(0), np.empty(0, np.int64), *np.empty((2, 0, len(COCO_THRESHOLDS)), np.bool_))
        scores, classes, hits, ignored = (
            np.concatenate([getattr(detections, name) for detections in (nothing, *parts)])
            for name in ("scores", "classes", "hits", "ignored")
        )
        order = np.lexsort((tie_break, -scores))
        return cls(Detections(scores[order], classes[order], hits[order], ignored[order]), image[order], true)

    def merged(self, other: PooledDetections) -> PooledDetections:
        """Merge with the detections of another model on the same images.

        The images of `other` are numbered after those of this model, but equally confident detections are in the order of the images,
        whichever model they come from.
        """
        image, tie_break = (np.concatenate([self.image, other.image + offset]) for offset in (len(self.true), 0))
        true = np.concatenate([self.true, other.true])
        return self._sorted([self.detections, other.detections], image, tie_break, true)

    def of_class(self, class_id: int) -> PooledDetections:
        """Return the detections and true instances of one class."""
        everything = self.detections
        selected = everything.classes == class_id
        detections = Detections(
            everything.scores[selected],
            everything.classes[selected],
            everything.hits[selected],
            everything.ignored[selected],
        )
        return PooledDetections(detections, self.image[selected], self.true[:, class_id : class_id + 1])


def average_precision(pools: Sequence[PooledDetections], weights: Values, thresholds: Sequence[int]) -> Values:
    """Compute COCO AP with each image counted as often as it was drawn.

    Copies of a detection are next to each other in the order, even if other detections are equally confident.

    Args:
        pools: the detections of each class that counts, from `PooledDetections.of_class`.
        weights: (resamples, images), whole numbers: how often each image was drawn.
        thresholds: the indices into `COCO_THRESHOLDS` over which the mean is taken.

    Returns:
        (resamples,): the mean over the classes that have true instances; NaN if none has.
    """
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for pool in pools:
        true = weights @ pool.true[:, 0]
        rows = max(1, _MAX_VALUES // max(1, len(pool.detections)))
        for start in range(0, len(weights), rows):
            part = slice(start, start + rows)
            total[part] += np.where(true[part] > 0, _class_precision(pool, weights[part], true[part], thresholds), 0.0)
        count += true > 0
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def _class_precision(pool: PooledDetections, weights: Values, true: Values, thresholds: Sequence[int]) -> Values:
    """Compute AP of one class, (resamples,).

    Precision is computed only at detections that are hits at some threshold: between them it only falls.
    """
    hits, ignored = pool.detections.hits[:, thresholds], pool.detections.ignored[:, thresholds]
    at = np.flatnonzero(hits.any(1))
    total, needed = np.zeros(len(weights)), _hits_for_recalls(true)
    if not len(at):
        return total
    drawn = weights[:, pool.image]
    so_far, drawn_hits = drawn.cumsum(1)[:, at], drawn[:, at]
    share = 1 / np.maximum(so_far, 1)
    for index in range(len(thresholds)):
        right = (drawn_hits * hits[at, index]).cumsum(1)
        counted_share = share
        if ignored[:, index].any():
            counted_share = 1 / np.maximum(so_far - (drawn * ignored[:, index]).cumsum(1)[:, at], 1)
        total += _mean_over_recalls(right * counted_share, right, needed)
    return total / len(thresholds)


def _hits_for_recalls(true: Values) -> Values:
    """Return the smallest number of hits that reaches each recall, (resamples, 101), by the same division as COCO's code."""
    true = np.maximum(true, 1)[:, None]
    needed = np.ceil(_RECALLS * true)
    needed = np.where((needed - 1) / true >= _RECALLS, needed - 1, needed)
    return np.where(needed / true < _RECALLS, needed + 1, needed)


def _mean_over_recalls(precision: Values, right: Values, needed: Values) -> Values:
    """Average the interpolated precision over the recalls, (resamples,).

    The interpolated precision at a recall is the largest precision from the detection on that reaches the recall; 0 if it is not
    reached.

    One search serves all rows: the counts of each row, which never fall, are shifted above those of the row before. The largest
    precision is taken between each two recalls, then accumulated from the last recall backwards; the first recall, 0, starts at the
    first detection.

    Args:
        precision: (resamples, detections).
        right: (resamples, detections), the number of hits so far.
        needed: (resamples, 101), the hits that reach each recall.
    """
    rows, last = right.shape[0], right.shape[1] - 1
    row = np.arange(rows)[:, None]
    shifted = row * (max(float(right.max()), float(needed.max())) + 1)
    flat_index = np.searchsorted((right + shifted).ravel(), (needed + shifted).ravel()).reshape(needed.shape)
    index = flat_index - row * (last + 1)
    reached = index <= last
    starts = np.minimum(index, last) + row * (last + 1)
    best = np.maximum.reduceat(precision.ravel(), starts.ravel()).reshape(needed.shape)
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    return np.where(reached, best, 0.0).mean(1)

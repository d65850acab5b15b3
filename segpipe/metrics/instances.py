"""Objects compared: precision, recall and F1 at IoU thresholds, as the nuclei challenge scores them, and panoptic quality.

Two objects of one class match where their IoU is above a threshold. Above 0.5 and without overlaps no object can match two
(Kirillov et al. 2019); where more than one could, the assignment with the most matches counts, of those the one with the
largest sum of IoU. Matches, true and predicted objects are `Tallies` like pixels: `per_class("dice", ...)` of them is F1,
`per_class("iou", ...)` is TP / (TP + FP + FN), `precision` and `recall` are themselves; summed over images or image by image.

Ignored pixels belong to no object. A predicted object with more than half of its pixels on them is left out altogether
(Kirillov et al. 2019). Sources: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.metrics.counting import Counts, Values
from segpipe.metrics.semantic import micro, per_class
from segpipe.samples import Instances

Mask = npt.NDArray[np.bool_]

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.5, 0.55, ... 0.95: those of the nuclei challenge and of COCO."""

_MOST_IDS = 1 << 16


@dataclass(frozen=True)
class InstanceMasks:
    """The objects of one image. They may overlap where they come `from_masks`.

    shape: (H, W) or (D, H, W) of the image. area: (n,), pixels. scores: (n,), confidences, larger is surer; 1 for a truth.
    classes: (n,), class ids.
    """

    shape: tuple[int, ...]
    area: npt.NDArray[np.int64]
    scores: Values
    classes: npt.NDArray[np.int64]
    pixels: Mask | npt.NDArray[np.unsignedinteger[Any]]
    """(n, *shape) bool where objects may overlap; else a map of shape `shape` with 1 .. n where object 0 .. n - 1 is."""

    def __len__(self) -> int:
        return len(self.area)

    @property
    def overlapping(self) -> bool:
        """Whether objects are held as masks, each for itself."""
        return self.pixels.dtype == np.bool_

    @classmethod
    def from_map(
        cls,
        labels: npt.NDArray[np.unsignedinteger[Any]],
        scores: Mapping[int, float] | None = None,
        classes: Mapping[int, int] | None = None,
    ) -> InstanceMasks:
        """From a map of object ids, (H, W) or (D, H, W), uint8 or uint16, 0 for none; objects in the order of their ids.

        scores, classes: by id; left out, every score is 1 and every class 0. Raises ValueError where an id has none.
        """
        if labels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"object ids are uint8 or uint16, found {labels.dtype}")
        area = np.bincount(labels.reshape(-1), minlength=_MOST_IDS)
        ids = np.flatnonzero(area[1:]) + 1
        for name, given in (("score", scores), ("class", classes)):
            lacking = [int(i) for i in ids if given is not None and int(i) not in given]
            if lacking:
                raise ValueError(f"objects {lacking[:5]} have no {name}")
        places = np.zeros(_MOST_IDS, np.uint16)
        places[ids] = np.arange(1, len(ids) + 1)
        sure = np.ones(len(ids)) if scores is None else np.array([scores[int(i)] for i in ids], np.float64)
        kinds = np.zeros(len(ids), np.int64) if classes is None else np.array([classes[int(i)] for i in ids], np.int64)
        return cls(labels.shape, area[ids], sure, kinds, places[labels])

    @classmethod
    def from_instances(cls, instances: Instances) -> InstanceMasks:
        """From the objects of a sample or of a prediction."""
        areas, pixels = instances.areas(), instances.ids
        return cls(pixels.shape, areas, instances.scores, instances.classes, pixels)

    @classmethod
    def from_masks(
        cls, masks: Mask, scores: Sequence[float] | Values | None = None, classes: Sequence[int] | None = None
    ) -> InstanceMasks:
        """From masks that may overlap, (n, H, W) or (n, D, H, W), bool; scores and classes in the same order.

        A mask without a pixel is no object and left out. Raises ValueError where numbers of masks, scores and classes differ.
        """
        if masks.dtype != np.bool_:
            raise ValueError(f"masks are bool, found {masks.dtype}")
        sure = np.ones(len(masks)) if scores is None else np.asarray(scores, np.float64)
        kinds = np.zeros(len(masks), np.int64) if classes is None else np.asarray(classes, np.int64)
        if not len(masks) == len(sure) == len(kinds):
            raise ValueError(f"{len(masks)} masks, {len(sure)} scores and {len(kinds)} classes")
        area = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
        kept = area > 0
        return cls(masks.shape[1:], area[kept], sure[kept], kinds[kept], masks[kept])

    def only(self, kept: npt.NDArray[np.bool_], counted: Mask | None = None) -> InstanceMasks:
        """Those of the objects, (n,) bool, with those of their pixels, (*shape,) bool, that are `counted`."""
        if self.overlapping:
            masks: Any = self.pixels[kept] if counted is None else self.pixels[kept] & counted
            return InstanceMasks.from_masks(masks, self.scores[kept], self.classes[kept].tolist())
        table = np.where(np.append(False, kept), np.arange(len(self) + 1), 0).astype(np.uint16)
        labels = table[self.pixels] if counted is None else np.where(counted, table[self.pixels], np.uint16(0))
        ids = range(1, len(self) + 1)
        return InstanceMasks.from_map(
            labels,
            dict(zip(ids, self.scores.tolist(), strict=True)),
            dict(zip(ids, self.classes.tolist(), strict=True)),
        )


def without_ignored(
    truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None
) -> tuple[InstanceMasks, InstanceMasks]:
    """Truth and prediction without ignored pixels, (*shape,) bool, and without predicted objects that are mostly on them."""
    if ignored is None or not ignored.any():
        return truth, prediction
    if prediction.overlapping:
        lost = np.array([np.count_nonzero(mask & ignored) for mask in prediction.pixels], np.int64)
    else:
        lost = np.bincount(prediction.pixels[ignored], minlength=len(prediction) + 1)[1:]
    everything = np.ones(len(truth), np.bool_)
    return truth.only(everything, ~ignored), prediction.only(2 * lost <= prediction.area, ~ignored)


@dataclass(frozen=True)
class Overlaps:
    """The pairs of a true and a predicted object of one class that share pixels; every other pair has an IoU of 0.

    true, said: (pairs,), the places of the two, in the order of the true objects and for each in that of the predicted ones.
    iou: (pairs,), above 0 to 1.
    """

    true: npt.NDArray[np.int64]
    said: npt.NDArray[np.int64]
    iou: Values

    def only(self, kept: npt.NDArray[np.bool_]) -> Overlaps:
        """Those of the pairs, (pairs,) bool."""
        return Overlaps(self.true[kept], self.said[kept], self.iou[kept])

    def alone(self) -> npt.NDArray[np.bool_]:
        """(pairs,): whether neither of the two objects is in another pair."""
        return np.asarray((np.bincount(self.true)[self.true] == 1) & (np.bincount(self.said)[self.said] == 1))


def overlaps(truth: InstanceMasks, prediction: InstanceMasks) -> Overlaps:
    """The pairs of an image's objects, found in one pass over its pixels. Raises ValueError for images of two shapes."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    true, said, shared = _shared_pixels(truth, prediction)
    union = truth.area[true] + prediction.area[said] - shared
    return Overlaps(true, said, shared / union).only(truth.classes[true] == prediction.classes[said])


def _shared_pixels(truth: InstanceMasks, prediction: InstanceMasks) -> tuple[npt.NDArray[np.int64], ...]:
    """Places of true and predicted objects, and how many pixels they share, each (pairs,); in the order of `Overlaps`."""
    if truth.overlapping or prediction.overlapping:
        shared = _shared_by_masks(truth, prediction)
        true, said = np.nonzero(shared)
        return true, said, shared[true, said]
    both = (truth.pixels > 0) & (prediction.pixels > 0)
    n = len(prediction) + 1
    pair = truth.pixels[both].astype(np.int64) * n + prediction.pixels[both]
    starts = np.flatnonzero(np.diff(pair, prepend=-1))  # few runs of one pair instead of many pixels are sorted
    pairs, run = np.unique(pair[starts], return_inverse=True)
    shared = np.bincount(run, np.diff(starts, append=len(pair)), len(pairs)).astype(np.int64)
    return pairs // n - 1, pairs % n - 1, shared


def _shared_by_masks(truth: InstanceMasks, prediction: InstanceMasks) -> npt.NDArray[np.int64]:
    """(true, predicted): pixels that each pair shares, where objects of either side may overlap."""
    if truth.overlapping and prediction.overlapping:
        rows = [[np.count_nonzero(there & said) for said in prediction.pixels] for there in truth.pixels]
        return np.array(rows, np.int64).reshape(len(truth), len(prediction))
    if truth.overlapping:
        return _shared_by_masks(prediction, truth).T
    columns = [np.bincount(truth.pixels[mask], minlength=len(truth) + 1)[1:] for mask in prediction.pixels]
    return np.array(columns, np.int64).reshape(len(prediction), len(truth)).T


def match_pairs(found: Overlaps, threshold: float) -> npt.NDArray[np.bool_]:
    """(pairs,): which pairs match: IoU above the threshold, each object in one pair at the most."""
    matched = found.iou > threshold
    near = found.only(matched)
    if near.alone().all():
        return matched
    from scipy.optimize import linear_sum_assignment

    (rows, row), (columns, column) = (np.unique(places, return_inverse=True) for places in (near.true, near.said))
    worth = np.zeros((len(rows), len(columns)))
    worth[row, column] = near.iou + min(worth.shape)  # a pair more outweighs whatever IoU it costs
    chosen = np.zeros(worth.shape, np.bool_)
    chosen[linear_sum_assignment(worth, maximize=True)] = True
    matched[matched] = chosen[row, column]
    return matched


@dataclass(frozen=True)
class InstanceCounts:
    """Objects counted, of one image or (added) of many.

    tallies: (10, 3, n_classes): matched, true and predicted objects at each of `THRESHOLDS`. iou_sum: (n_classes,), of the
    pairs that match at the first of them, 0.5.
    """

    tallies: Counts
    iou_sum: Values

    def __add__(self, other: InstanceCounts) -> InstanceCounts:
        return InstanceCounts(self.tallies + other.tallies, self.iou_sum + other.iou_sum)


def count_instances(
    truth: InstanceMasks, prediction: InstanceMasks, n_classes: int, ignored: Mask | None = None
) -> InstanceCounts:
    """Count the matches of an image's objects. ignored: (*shape,) bool, pixels that count nowhere."""
    truth, prediction = without_ignored(truth, prediction, ignored)
    found = overlaps(truth, prediction)
    counts = np.zeros((len(THRESHOLDS), 3, n_classes), np.int64)
    counts[:, 1] = np.bincount(truth.classes, minlength=n_classes)
    counts[:, 2] = np.bincount(prediction.classes, minlength=n_classes)
    pairs = [found.only(match_pairs(found, threshold)) for threshold in THRESHOLDS]
    for place, matched in enumerate(pairs):
        counts[place, 0] = np.bincount(truth.classes[matched.true], minlength=n_classes)
    labels = truth.classes[pairs[0].true]
    iou_sum = np.bincount(labels, pairs[0].iou, n_classes).astype(np.float64)  # int where no pair is
    return InstanceCounts(counts, iou_sum)


def challenge_score(score: InstanceCounts) -> float:
    """The score of the 2018 Data Science Bowl for an image: TP / (TP + FP + FN) of all classes, its mean over `THRESHOLDS`.

    NaN where there is neither a true nor a predicted object. The challenge's result is the mean over images.
    """
    return float(micro("iou", score.tallies).mean())


@dataclass(frozen=True)
class PanopticQuality:
    """PQ = SQ x RQ, each (n_classes,), NaN for a class with neither a true nor a predicted object.

    sq: mean IoU of matched pairs, 0 where nothing matches. rq: F1 at IoU 0.5.
    """

    pq: Values
    sq: Values
    rq: Values


def panoptic_quality(score: InstanceCounts) -> PanopticQuality:
    """Panoptic quality of each class; of a dataset from the sum of its images' scores. Its mean over classes: `np.nanmean`."""
    rq = per_class("dice", score.tallies[0])
    matched = score.tallies[0, 0]
    sq = np.where(np.isnan(rq), np.nan, score.iou_sum / np.maximum(matched, 1))
    return PanopticQuality(sq * rq, sq, rq)

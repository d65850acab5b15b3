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
class Objects:
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
    ) -> Objects:
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
    def from_instances(cls, instances: Instances) -> Objects:
        """From the objects of a sample or of a prediction."""
        areas, pixels = instances.areas(), instances.ids
        return cls(pixels.shape, areas, instances.scores, instances.classes, pixels)

    @classmethod
    def from_masks(
        cls, masks: Mask, scores: Sequence[float] | Values | None = None, classes: Sequence[int] | None = None
    ) -> Objects:
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

    def only(self, kept: npt.NDArray[np.bool_], counted: Mask | None = None) -> Objects:
        """Those of the objects, (n,) bool, with those of their pixels, (*shape,) bool, that are `counted`."""
        if self.overlapping:
            masks: Any = self.pixels[kept] if counted is None else self.pixels[kept] & counted
            return Objects.from_masks(masks, self.scores[kept], self.classes[kept].tolist())
        table = np.where(np.append(False, kept), np.arange(len(self) + 1), 0).astype(np.uint16)
        labels = table[self.pixels] if counted is None else np.where(counted, table[self.pixels], np.uint16(0))
        ids = range(1, len(self) + 1)
        return Objects.from_map(
            labels,
            dict(zip(ids, self.scores.tolist(), strict=True)),
            dict(zip(ids, self.classes.tolist(), strict=True)),
        )


def without_ignored(truth: Objects, prediction: Objects, ignored: Mask | None) -> tuple[Objects, Objects]:
    """Truth and prediction without ignored pixels, (*shape,) bool, and without predicted objects that are mostly on them."""
    if ignored is None or not ignored.any():
        return truth, prediction
    if prediction.overlapping:
        lost = np.array([np.count_nonzero(mask & ignored) for mask in prediction.pixels], np.int64)
    else:
        lost = np.bincount(prediction.pixels[ignored], minlength=len(prediction) + 1)[1:]
    everything = np.ones(len(truth), np.bool_)
    return truth.only(everything, ~ignored), prediction.only(2 * lost <= prediction.area, ~ignored)


def iou_matrix(truth: Objects, prediction: Objects) -> Values:
    """(true objects, predicted objects): the IoU of each pair, 0 for a pair of different classes."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    shared = _shared_pixels(truth, prediction)
    union = truth.area[:, None] + prediction.area[None] - shared
    return np.where(truth.classes[:, None] == prediction.classes[None], shared / np.maximum(union, 1), 0.0)


def _shared_pixels(truth: Objects, prediction: Objects) -> npt.NDArray[np.int64]:
    if truth.overlapping and prediction.overlapping:
        rows = [[np.count_nonzero(there & said) for said in prediction.pixels] for there in truth.pixels]
        return np.array(rows, np.int64).reshape(len(truth), len(prediction))
    if truth.overlapping:
        return _shared_pixels(prediction, truth).T
    n = len(truth) + 1
    if prediction.overlapping:
        columns = [np.bincount(truth.pixels[mask], minlength=n)[1:] for mask in prediction.pixels]
        return np.array(columns, np.int64).reshape(len(prediction), len(truth)).T
    pair = truth.pixels.reshape(-1) + prediction.pixels.reshape(-1).astype(np.int64) * n
    shared = np.bincount(pair, minlength=n * (len(prediction) + 1)).reshape(len(prediction) + 1, n)
    return shared[1:, 1:].T


def matches(iou: Values, threshold: float) -> npt.NDArray[np.bool_]:
    """(true, predicted) IoU -> which pairs match: IoU above the threshold, each object in one pair at the most."""
    near = iou > threshold
    if (near.sum(0) <= 1).all() and (near.sum(1) <= 1).all():
        return near
    from scipy.optimize import linear_sum_assignment

    # A pair more outweighs whatever IoU it costs.
    rows, columns = linear_sum_assignment(np.where(near, iou + min(iou.shape), 0.0), maximize=True)
    chosen = np.zeros_like(near)
    chosen[rows, columns] = True
    return chosen & near


@dataclass(frozen=True)
class ObjectScore:
    """Objects counted, of one image or (added) of many.

    tallies: (10, 3, n_classes): matched, true and predicted objects at each of `THRESHOLDS`. iou_sum: (n_classes,), of the
    pairs that match at the first of them, 0.5.
    """

    tallies: Counts
    iou_sum: Values

    def __add__(self, other: ObjectScore) -> ObjectScore:
        return ObjectScore(self.tallies + other.tallies, self.iou_sum + other.iou_sum)


def object_score(truth: Objects, prediction: Objects, n_classes: int, ignored: Mask | None = None) -> ObjectScore:
    """Count the matches of an image's objects. ignored: (*shape,) bool, pixels that count nowhere."""
    truth, prediction = without_ignored(truth, prediction, ignored)
    iou = iou_matrix(truth, prediction)
    counts = np.zeros((len(THRESHOLDS), 3, n_classes), np.int64)
    counts[:, 1] = np.bincount(truth.classes, minlength=n_classes)
    counts[:, 2] = np.bincount(prediction.classes, minlength=n_classes)
    pairs = [matches(iou, threshold) for threshold in THRESHOLDS]
    for place, matched in enumerate(pairs):
        counts[place, 0] = np.bincount(truth.classes[matched.any(1)], minlength=n_classes)
    rows, columns = np.nonzero(pairs[0])
    iou_sum = np.bincount(truth.classes[rows], iou[rows, columns], n_classes).astype(np.float64)  # int where no pair is
    return ObjectScore(counts, iou_sum)


def challenge_score(score: ObjectScore) -> float:
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


def panoptic_quality(score: ObjectScore) -> PanopticQuality:
    """Panoptic quality of each class; of a dataset from the sum of its images' scores. Its mean over classes: `np.nanmean`."""
    rq = per_class("dice", score.tallies[0])
    matched = score.tallies[0, 0]
    sq = np.where(np.isnan(rq), np.nan, score.iou_sum / np.maximum(matched, 1))
    return PanopticQuality(sq * rq, sq, rq)

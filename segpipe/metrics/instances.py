"""Instances compared: precision, recall and F1 at IoU thresholds, the score of the nuclei challenge, and panoptic quality.

Two instances of one class match if their IoU is above a threshold. Above 0.5 and without overlaps, no instance can match two
(Kirillov et al. 2019). If more than one could match, the assignment with the most matches counts, and of those the one with the
largest sum of IoU. Matches, true and predicted instances are `Tallies`, like pixels: `per_class("dice", ...)` of them is F1,
`per_class("iou", ...)` is TP / (TP + FP + FN), and `precision` and `recall` follow from the same counts, over all images or per image.

Ignored pixels belong to no instance. A predicted instance with more than half of its pixels on ignored ones is left out
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

_MAX_IDS = 1 << 16


@dataclass(frozen=True)
class InstanceMasks:
    """The instances of one image. They may overlap if they are made by `from_masks`.

    Attributes:
        shape: (H, W) or (D, H, W) of the image.
        area: (n,), pixels.
        scores: (n,), confidences; 1 for true instances.
        classes: (n,), class ids.
        pixels: (n, *shape) bool if instances may overlap; else a map of shape `shape` that is 1 .. n where instance 0 .. n - 1 is.
    """

    shape: tuple[int, ...]
    area: npt.NDArray[np.int64]
    scores: Values
    classes: npt.NDArray[np.int64]
    pixels: Mask | npt.NDArray[np.unsignedinteger[Any]]

    def __len__(self) -> int:
        return len(self.area)

    @property
    def overlapping(self) -> bool:
        """True if each instance has a mask of its own."""
        return self.pixels.dtype == np.bool_

    @classmethod
    def from_map(
        cls,
        labels: npt.NDArray[np.unsignedinteger[Any]],
        scores: Mapping[int, float] | None = None,
        classes: Mapping[int, int] | None = None,
    ) -> InstanceMasks:
        """Make instances from a map of instance ids; they are in the order of their ids.

        Args:
            labels: (H, W) or (D, H, W), uint8 or uint16, 0 for no instance.
            scores: confidences by id; by default 1.
            classes: class ids by id; by default 0.

        Raises:
            ValueError: the map has another dtype, or an id has no score or class.
        """
        if labels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"instance ids are uint8 or uint16, found {labels.dtype}")
        area = np.bincount(labels.reshape(-1), minlength=_MAX_IDS)
        ids = np.flatnonzero(area[1:]) + 1
        for name, values in (("score", scores), ("class", classes)):
            missing = [int(i) for i in ids if values is not None and int(i) not in values]
            if missing:
                raise ValueError(f"instances {missing[:5]} have no {name}")
        numbers = np.zeros(_MAX_IDS, np.uint16)
        numbers[ids] = np.arange(1, len(ids) + 1)
        confidences = np.ones(len(ids)) if scores is None else np.array([scores[int(i)] for i in ids], np.float64)
        class_ids = (
            np.zeros(len(ids), np.int64) if classes is None else np.array([classes[int(i)] for i in ids], np.int64)
        )
        return cls(labels.shape, area[ids], confidences, class_ids, numbers[labels])

    @classmethod
    def from_instances(cls, instances: Instances) -> InstanceMasks:
        """Make instances from those of a sample or of a prediction."""
        areas, pixels = instances.areas(), instances.ids
        return cls(pixels.shape, areas, instances.scores, instances.classes, pixels)

    @classmethod
    def from_masks(
        cls, masks: Mask, scores: Sequence[float] | Values | None = None, classes: Sequence[int] | None = None
    ) -> InstanceMasks:
        """Make instances from masks that may overlap. A mask without pixels is left out.

        Args:
            masks: (n, H, W) or (n, D, H, W), bool.
            scores: (n,), confidences; by default 1.
            classes: (n,), class ids; by default 0.

        Raises:
            ValueError: masks are not bool, or the numbers of masks, scores and classes differ.
        """
        if masks.dtype != np.bool_:
            raise ValueError(f"masks are bool, found {masks.dtype}")
        confidences = np.ones(len(masks)) if scores is None else np.asarray(scores, np.float64)
        class_ids = np.zeros(len(masks), np.int64) if classes is None else np.asarray(classes, np.int64)
        if not len(masks) == len(confidences) == len(class_ids):
            raise ValueError(f"{len(masks)} masks, {len(confidences)} scores and {len(class_ids)} classes")
        area = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
        filled = area > 0
        return cls(masks.shape[1:], area[filled], confidences[filled], class_ids[filled], masks[filled])

    def only(self, selected: npt.NDArray[np.bool_], counted: Mask | None = None) -> InstanceMasks:
        """Return some of the instances.

        Args:
            selected: (n,), bool, the instances to return.
            counted: (*shape,), bool, the pixels that they may keep; by default all.
        """
        if self.overlapping:
            masks: Any = self.pixels[selected] if counted is None else self.pixels[selected] & counted
            return InstanceMasks.from_masks(masks, self.scores[selected], self.classes[selected].tolist())
        table = np.where(np.append(False, selected), np.arange(len(self) + 1), 0).astype(np.uint16)
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
    """Remove ignored pixels from truth and prediction, and predicted instances that lie mostly on them.

    Args:
        truth: the true instances.
        prediction: the predicted instances.
        ignored: (*shape,), bool; None if no pixel is ignored.
    """
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
    """The pairs of a true and a predicted instance of one class that share pixels; every other pair has an IoU of 0.

    Attributes:
        true: (pairs,), the index of the true instance; in rising order.
        predicted: (pairs,), the index of the predicted instance; in rising order for each true one.
        iou: (pairs,), above 0 to 1.
    """

    true: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    iou: Values

    def only(self, selected: npt.NDArray[np.bool_]) -> Overlaps:
        """Return some of the pairs. selected: (pairs,), bool."""
        return Overlaps(self.true[selected], self.predicted[selected], self.iou[selected])

    def alone(self) -> npt.NDArray[np.bool_]:
        """Return whether neither of the two instances is in another pair, (pairs,)."""
        return np.asarray((np.bincount(self.true)[self.true] == 1) & (np.bincount(self.predicted)[self.predicted] == 1))


def overlaps(truth: InstanceMasks, prediction: InstanceMasks) -> Overlaps:
    """Find the overlapping pairs of instances of one image, in one pass over its pixels.

    Raises:
        ValueError: truth and prediction have different shapes.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    true, predicted, shared = _shared_pixels(truth, prediction)
    union = truth.area[true] + prediction.area[predicted] - shared
    return Overlaps(true, predicted, shared / union).only(truth.classes[true] == prediction.classes[predicted])


def _shared_pixels(truth: InstanceMasks, prediction: InstanceMasks) -> tuple[npt.NDArray[np.int64], ...]:
    """Return the indices of true and predicted instances, and the number of pixels that they share, each (pairs,).

    The pairs are in the order of `Overlaps`.
    """
    if truth.overlapping or prediction.overlapping:
        table = _shared_by_masks(truth, prediction)
        true, predicted = np.nonzero(table)
        return true, predicted, table[true, predicted]
    both = (truth.pixels > 0) & (prediction.pixels > 0)
    n = len(prediction) + 1
    pair = truth.pixels[both].astype(np.int64) * n + prediction.pixels[both]
    starts = np.flatnonzero(np.diff(pair, prepend=-1))  # sorts the few runs of equal pairs instead of all pixels
    pairs, run = np.unique(pair[starts], return_inverse=True)
    shared = np.bincount(run, np.diff(starts, append=len(pair)), len(pairs)).astype(np.int64)
    return pairs // n - 1, pairs % n - 1, shared


def _shared_by_masks(truth: InstanceMasks, prediction: InstanceMasks) -> npt.NDArray[np.int64]:
    """Count the pixels that each pair shares, (true, predicted), if instances of either side may overlap."""
    if truth.overlapping and prediction.overlapping:
        rows = [[np.count_nonzero(true & predicted) for predicted in prediction.pixels] for true in truth.pixels]
        return np.array(rows, np.int64).reshape(len(truth), len(prediction))
    if truth.overlapping:
        return _shared_by_masks(prediction, truth).T
    columns = [np.bincount(truth.pixels[mask], minlength=len(truth) + 1)[1:] for mask in prediction.pixels]
    return np.array(columns, np.int64).reshape(len(prediction), len(truth)).T


def match_pairs(pairs: Overlaps, threshold: float) -> npt.NDArray[np.bool_]:
    """Choose the pairs that match: IoU above the threshold, each instance in at most one pair. Returns (pairs,)."""
    matched = pairs.iou > threshold
    near = pairs.only(matched)
    if near.alone().all():
        return matched
    from scipy.optimize import linear_sum_assignment

    rows, row = np.unique(near.true, return_inverse=True)
    columns, column = np.unique(near.predicted, return_inverse=True)
    worth = np.zeros((len(rows), len(columns)))
    worth[row, column] = near.iou + min(worth.shape)  # one more pair outweighs any loss of IoU
    chosen = np.zeros(worth.shape, np.bool_)
    chosen[linear_sum_assignment(worth, maximize=True)] = True
    matched[matched] = chosen[row, column]
    return matched


@dataclass(frozen=True)
class InstanceCounts:
    """The counts of instances of one image, or the sum over images.

    Attributes:
        tallies: (10, 3, n_classes), matched, true and predicted instances at each of `THRESHOLDS`.
        iou_sum: (n_classes,), the summed IoU of the pairs that match at the first threshold, 0.5.
    """

    tallies: Counts
    iou_sum: Values

    def __add__(self, other: InstanceCounts) -> InstanceCounts:
        return InstanceCounts(self.tallies + other.tallies, self.iou_sum + other.iou_sum)


def count_instances(
    truth: InstanceMasks, prediction: InstanceMasks, n_classes: int, ignored: Mask | None = None
) -> InstanceCounts:
    """Count the matches of the instances of one image.

    Args:
        truth: the true instances.
        prediction: the predicted instances.
        n_classes: the number of classes.
        ignored: (*shape,), bool, pixels that count nowhere.

    Raises:
        ValueError: truth and prediction have different shapes.
    """
    truth, prediction = without_ignored(truth, prediction, ignored)
    pairs = overlaps(truth, prediction)
    counts = np.zeros((len(THRESHOLDS), 3, n_classes), np.int64)
    counts[:, 1] = np.bincount(truth.classes, minlength=n_classes)
    counts[:, 2] = np.bincount(prediction.classes, minlength=n_classes)
    matched_at = [pairs.only(match_pairs(pairs, threshold)) for threshold in THRESHOLDS]
    for index, matched in enumerate(matched_at):
        counts[index, 0] = np.bincount(truth.classes[matched.true], minlength=n_classes)
    labels = truth.classes[matched_at[0].true]
    iou_sum = np.bincount(labels, matched_at[0].iou, n_classes).astype(np.float64)  # int if there is no pair
    return InstanceCounts(counts, iou_sum)


def challenge_score(counts: InstanceCounts) -> float:
    """Compute the score of the 2018 Data Science Bowl for one image: TP / (TP + FP + FN) of all classes, its mean over `THRESHOLDS`.

    The result of the challenge is the mean over images.

    Returns:
        The score; NaN if there is neither a true nor a predicted instance.
    """
    return float(micro("iou", counts.tallies).mean())


@dataclass(frozen=True)
class PanopticQuality:
    """PQ = SQ x RQ by class; NaN for a class with neither a true nor a predicted instance.

    Attributes:
        pq: (n_classes,), panoptic quality.
        sq: (n_classes,), segmentation quality: the mean IoU of matched pairs, 0 if nothing matches.
        rq: (n_classes,), recognition quality: F1 at IoU 0.5.
    """

    pq: Values
    sq: Values
    rq: Values


def panoptic_quality(counts: InstanceCounts) -> PanopticQuality:
    """Compute the panoptic quality of each class; for a dataset, from the sum of its images' counts."""
    rq = per_class("dice", counts.tallies[0])
    matched = counts.tallies[0, 0]
    sq = np.where(np.isnan(rq), np.nan, counts.iou_sum / np.maximum(matched, 1))
    return PanopticQuality(sq * rq, sq, rq)

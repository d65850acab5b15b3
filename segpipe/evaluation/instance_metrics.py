"""Instance metrics by name, as gates and rankings use them: `instance.NAME` over all classes, `instance.class.CLASS.NAME` of one.

The names are those in metrics.json. All metrics except average precision follow from sums over images, so that their resamples cost
as little as those of pixel metrics; average precision is computed again on each resample (`segpipe.metrics.detections`).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.errors import ConfigError
from segpipe.evaluation.statistics import Exchangeable, SumStatistic, mean_statistic, sum_by_unit
from segpipe.metrics import Counts, Values, micro, per_class
from segpipe.metrics.detections import Detections, PooledDetections, average_precision
from segpipe.metrics.instances import InstanceCounts, challenge_score

PREFIX = "instance."
_CLASS_PREFIX = "instance.class."

DESCRIPTIONS = {
    "f1_50": "F1 of instances at IoU 0.5",
    "pq": "panoptic quality",
    "sq": "segmentation quality",
    "rq": "recognition quality",
    "challenge": "challenge score of instances",
    "ap": "mask AP",
    "ap50": "mask AP at IoU 0.5",
    "ap75": "mask AP at IoU 0.75",
}
"""The names of instance metrics, in words."""

_AP_THRESHOLDS = {"ap": tuple(range(10)), "ap50": (0,), "ap75": (5,)}
"""The thresholds over which average precision is averaged: indices into `segpipe.metrics.detections.COCO_THRESHOLDS`."""

_MAX_VISITS = 1 << 25
"""Detections times thresholds that all resamples visit together: some seconds."""
_MIN_RESAMPLES = 1000


@dataclass(frozen=True)
class SplitInstances:
    """The counts of instances on a split, image by image.

    Attributes:
        tallies: (images, 10, 3, n_classes), as in `segpipe.metrics.instances.InstanceCounts`.
        iou: (images, n_classes), the summed IoU of matched pairs.
        detections: one per image; None if an evaluation of an earlier version did not store them.
    """

    tallies: Counts
    iou: Values
    detections: Sequence[Detections] | None


def is_instance(name: str) -> bool:
    """Return whether a metric is an instance metric, by its name."""
    return name.startswith(PREFIX)


def class_metric(name: str, class_name: str) -> str:
    """Return the name of an instance metric (`instance.NAME`) for a single class."""
    return f"{_CLASS_PREFIX}{class_name}.{name.removeprefix(PREFIX)}"


def describe_instance_metric(name: str) -> str:
    """Describe an instance metric in words. Raises ConfigError if there is no metric of this name."""
    score, class_name = _parse(name)
    return DESCRIPTIONS[score] + (f" of class {class_name}" if class_name is not None else "")


def _parse(name: str) -> tuple[str, str | None]:
    """Split a name into score and class. The name of a class may contain dots."""
    class_name, score = None, name.removeprefix(PREFIX)
    if name.startswith(_CLASS_PREFIX) and "." in name.removeprefix(_CLASS_PREFIX):
        class_name, score = name.removeprefix(_CLASS_PREFIX).rsplit(".", 1)
    if score not in DESCRIPTIONS or (class_name is not None and score == "challenge"):
        nearest = difflib.get_close_matches(score, DESCRIPTIONS, n=1, cutoff=0.4)
        known = f"the instance metrics are {', '.join(DESCRIPTIONS)}"
        fix = f"did you mean `{name.removesuffix(score)}{nearest[0]}`?" if nearest else known
        raise ConfigError("no such instance metric", found=name, fix=fix)
    return score, class_name


def check_name(name: str, classes: Sequence[str], instances: bool) -> tuple[str, str | None]:
    """Check that an instance metric exists for a dataset.

    Args:
        name: the metric.
        classes: the names of the dataset's classes.
        instances: whether the dataset has instances.

    Returns:
        The score and the class that the name consists of; None for all classes.

    Raises:
        ConfigError: there is no such score or class, or the dataset has no instances.
    """
    score, class_name = _parse(name)
    if not instances:
        raise ConfigError(
            "the dataset has no instances",
            found=name,
            expected="a pixel metric, such as iou.dataset.macro",
            fix="use one, or import instances (COCO, label maps, one file per instance)",
        )
    if class_name is not None and class_name not in classes:
        raise ConfigError("no such class", found=name, expected=" or ".join(classes))
    return score, class_name


def instance_statistic(
    name: str, candidate: str, classes: Sequence[str], instances: SplitInstances | None, units: npt.NDArray[np.int64]
) -> Exchangeable:
    """Return an instance metric as a function of how often each unit was drawn.

    Args:
        name: the metric.
        candidate: the model, for error messages.
        classes: the names of the classes.
        instances: the counts of instances; None if the model or the dataset has none.
        units: (images,), the unit of each image.

    Raises:
        ConfigError: there is no such metric or class, or `instances` is None.
    """
    score, class_name = check_name(name, classes, True)
    if instances is None:
        raise ConfigError(
            f"{candidate} has no instance scores",
            where="params.yaml",
            found=name,
            expected="a pixel metric, such as iou.dataset.macro, if the dataset has no instances",
            fix="import instances (COCO, label maps, one file per instance), and leave `postprocess` of the candidate at auto",
        )
    class_ids = range(len(classes)) if class_name is None else [list(classes).index(class_name)]
    if score in _AP_THRESHOLDS:
        return _average_precision(score, candidate, instances, list(class_ids), units)
    if score == "challenge":
        pairs = zip(instances.tallies, instances.iou, strict=True)
        by_image = [challenge_score(InstanceCounts(tallies, iou_sum)) for tallies, iou_sum in pairs]
        return mean_statistic(np.array(by_image, np.float64), units)
    counts = instances.tallies[:, 0][..., class_ids].reshape(len(units), -1)
    columns = sum_by_unit(np.concatenate([counts, instances.iou[:, class_ids]], axis=1), units)
    return SumStatistic(columns, lambda sums: _score_of_sums(score, sums))


def _score_of_sums(score: str, sums: Values) -> Values:
    """Compute a score from sums, (..., 4 * classes): matched, true and predicted instances, and summed IoU. Returns (...)."""
    n = sums.shape[-1] // 4
    tally = sums[..., : 3 * n].reshape(*sums.shape[:-1], 3, n)
    if score == "f1_50":
        return micro("dice", tally)
    rq = per_class("dice", tally)
    matched = tally[..., 0, :]
    mean_iou = np.divide(sums[..., 3 * n :], matched, out=np.zeros_like(rq), where=matched > 0)
    sq = np.where(np.isnan(rq), np.nan, mean_iou)
    by_class = {"pq": sq * rq, "sq": sq, "rq": rq}[score]
    known = ~np.isnan(by_class)
    total, count = np.where(known, by_class, 0.0).sum(-1), known.sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _average_precision(
    score: str, candidate: str, instances: SplitInstances, class_ids: list[int], units: npt.NDArray[np.int64]
) -> AveragePrecisionStatistic:
    if instances.detections is None:
        raise ConfigError(
            "average precision cannot be resampled from an evaluation of an earlier version",
            where=f"evaluation/{candidate}",
            found=f"instance.{score}",
            fix=f"dvc repro -f evaluate@{candidate}",
        )
    pool = PooledDetections.from_images(instances.detections, instances.tallies[:, 0, 1])
    return AveragePrecisionStatistic(tuple(pool.of_class(k) for k in class_ids), units, _AP_THRESHOLDS[score])


@dataclass(frozen=True)
class AveragePrecisionStatistic:
    """Average precision as a function of how often each unit was drawn.

    Attributes:
        pools: the detections of each class.
        units: (images,), the unit of each image.
        thresholds: indices into `segpipe.metrics.detections.COCO_THRESHOLDS`.
    """

    pools: tuple[PooledDetections, ...]
    units: npt.NDArray[np.int64]
    thresholds: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of units."""
        return int(self.units.max(initial=-1)) + 1

    @property
    def max_resamples(self) -> int:
        """Fewer for many detections, since each resample visits every detection, but never fewer than 1,000."""
        visits = len(self.thresholds) * sum(len(pool.detections) for pool in self.pools)
        return max(_MIN_RESAMPLES, _MAX_VISITS // max(1, visits))

    def __call__(self, weights: Values) -> Values:
        """Map multiplicities (resamples, units) to scores (resamples,)."""
        return average_precision(self.pools, weights[:, self.units], self.thresholds)

    def exchanged(self, other: AveragePrecisionStatistic, swapped: Values) -> tuple[Values, Values]:
        """Return the scores of two models after an exchange of the units that are 1 in `swapped`, (resamples, units).

        The detections of both models are sorted together; each model then uses its own images, or those that it received.
        """
        both = AveragePrecisionStatistic(
            tuple(a.merged(b) for a, b in zip(self.pools, other.pools, strict=True)),
            np.concatenate([self.units, self.size + other.units]),
            self.thresholds,
        )
        unchanged = 1 - swapped
        return both(np.concatenate([unchanged, swapped], axis=1)), both(np.concatenate([swapped, unchanged], axis=1))

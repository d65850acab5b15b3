"""Scores of objects by name, `instance.NAME` of all classes and `instance.class.CLASS.NAME`, as gates and rankings ask for them.

Names are those under which metrics.json tells them. All but average precision follow from sums over images, so that their
resamples cost what those of pixel scores do; average precision is counted anew on each resample (`segpipe.metrics.detections`).
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
_OF_CLASS = "instance.class."

DESCRIPTIONS = {
    "f1_50": "F1 of objects at IoU 0.5",
    "pq": "panoptic quality",
    "sq": "segmentation quality",
    "rq": "recognition quality",
    "challenge": "challenge score of objects",
    "ap": "mask AP",
    "ap50": "mask AP at IoU 0.5",
    "ap75": "mask AP at IoU 0.75",
}
"""The scores that there are, in words."""

_PRECISION = {"ap": tuple(range(10)), "ap50": (0,), "ap75": (5,)}
"""The thresholds over which average precision is taken: places in `segpipe.metrics.detections.COCO_THRESHOLDS`."""

_MOST_LOOKS = 1 << 25
_FEWEST_RESAMPLES = 1000


@dataclass(frozen=True)
class SplitInstances:
    """What is known of the objects of a split, image by image.

    tallies: (images, 10, 3, n_classes), as `segpipe.metrics.instances.InstanceCounts`. iou: (images, n_classes), summed. detections:
    one an image; None where evaluations of an earlier version kept none.
    """

    tallies: Counts
    iou: Values
    detections: Sequence[Detections] | None


def is_instance(name: str) -> bool:
    """Whether a metric is one of objects."""
    return name.startswith(PREFIX)


def class_metric(name: str, of_class: str) -> str:
    """`instance.NAME` of a single class."""
    return f"{_OF_CLASS}{of_class}.{name.removeprefix(PREFIX)}"


def describe_instance_metric(name: str) -> str:
    """A metric of objects in words; raises ConfigError where there is none of this name."""
    score, of_class = _parts(name)
    return DESCRIPTIONS[score] + (f" of class {of_class}" if of_class is not None else "")


def _parts(name: str) -> tuple[str, str | None]:
    """The score and the class that a name asks for; a class's name may hold dots."""
    of_class, score = None, name.removeprefix(PREFIX)
    if name.startswith(_OF_CLASS) and "." in name.removeprefix(_OF_CLASS):
        of_class, score = name.removeprefix(_OF_CLASS).rsplit(".", 1)
    if score not in DESCRIPTIONS or (of_class is not None and score == "challenge"):
        near = difflib.get_close_matches(score, DESCRIPTIONS, n=1, cutoff=0.4)
        fix = (
            f"did you mean `{name.removesuffix(score)}{near[0]}`?" if near else f"known here: {', '.join(DESCRIPTIONS)}"
        )
        raise ConfigError("no such metric of objects", found=name, fix=fix)
    return score, of_class


def check_name(name: str, classes: Sequence[str], instances: bool) -> tuple[str, str | None]:
    """The score and the class that a name asks for. instances: whether the dataset has objects. Raises ConfigError where there is no
    such score or class, or no object."""
    score, of_class = _parts(name)
    if not instances:
        raise ConfigError(
            "the dataset has no objects",
            found=name,
            expected="a metric of pixels, such as iou.dataset.macro",
            fix="name one, or import objects (COCO, label maps, a file for each)",
        )
    if of_class is not None and of_class not in classes:
        raise ConfigError("no such class", found=name, expected=" or ".join(classes))
    return score, of_class


def instance_statistic(
    name: str, candidate: str, classes: Sequence[str], objects: SplitInstances | None, units: npt.NDArray[np.int64]
) -> Exchangeable:
    """A metric of objects as a function of how often each unit was drawn. units: (images,), the unit of each image.

    Raises ConfigError where there is no such metric or class, and where no objects were told apart.
    """
    score, of_class = check_name(name, classes, True)
    if objects is None:
        raise ConfigError(
            f"{candidate} has no scores of objects",
            where="params.yaml",
            found=name,
            expected="a metric of pixels, such as iou.dataset.macro, where the dataset has no objects",
            fix="import objects (COCO, label maps, a file for each), and leave `postprocess` of the candidate at auto",
        )
    chosen = range(len(classes)) if of_class is None else [list(classes).index(of_class)]
    if score in _PRECISION:
        return _precision(score, candidate, objects, list(chosen), units)
    if score == "challenge":
        of_images = [challenge_score(InstanceCounts(t, i)) for t, i in zip(objects.tallies, objects.iou, strict=True)]
        return mean_statistic(np.array(of_images, np.float64), units)
    counts = objects.tallies[:, 0][..., chosen].reshape(len(units), -1)
    columns = sum_by_unit(np.concatenate([counts, objects.iou[:, chosen]], axis=1), units)
    return SumStatistic(columns, lambda sums: _of_sums(score, sums))


def _of_sums(score: str, sums: Values) -> Values:
    """(..., 4 * classes): matched, true and predicted objects, and summed IoU -> (...)."""
    n = sums.shape[-1] // 4
    tally = sums[..., : 3 * n].reshape(*sums.shape[:-1], 3, n)
    if score == "f1_50":
        return micro("dice", tally)
    rq = per_class("dice", tally)
    matched = tally[..., 0, :]
    sq = np.where(
        np.isnan(rq), np.nan, np.divide(sums[..., 3 * n :], matched, out=np.zeros_like(rq), where=matched > 0)
    )
    each = {"pq": sq * rq, "sq": sq, "rq": rq}[score]
    there = ~np.isnan(each)
    total, count = np.where(there, each, 0.0).sum(-1), there.sum(-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _precision(
    score: str, candidate: str, objects: SplitInstances, chosen: list[int], units: npt.NDArray[np.int64]
) -> AveragePrecisionOf:
    if objects.detections is None:
        raise ConfigError(
            "average precision can't be resampled from an evaluation of an earlier version",
            where=f"evaluation/{candidate}",
            found=f"instance.{score}",
            fix=f"dvc repro -f evaluate@{candidate}",
        )
    pool = PooledDetections.of(objects.detections, objects.tallies[:, 0, 1])
    return AveragePrecisionStatistic(tuple(pool.of_class(k) for k in chosen), units, _PRECISION[score])


@dataclass(frozen=True)
class AveragePrecisionStatistic:
    """Average precision as a function of how often each unit was drawn. pools: of each class; units: (images,)."""

    pools: tuple[PooledDetections, ...]
    units: npt.NDArray[np.int64]
    thresholds: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many units there are."""
        return int(self.units.max(initial=-1)) + 1

    @property
    def most_resamples(self) -> int:
        """Each resample looks at every detection: of many, fewer resamples are drawn, but never less than a thousand."""
        looks = len(self.thresholds) * sum(len(pool.found) for pool in self.pools)
        return max(_FEWEST_RESAMPLES, _MOST_LOOKS // max(1, looks))

    def __call__(self, weights: Values) -> Values:
        """Multiplicities (resamples, units) -> (resamples,)."""
        return average_precision(self.pools, weights[:, self.units], self.thresholds)

    def exchanged(self, other: AveragePrecisionStatistic, swapped: Values) -> tuple[Values, Values]:
        """The scores of two models after exchanging the units that are 1 in (resamples, units): detections of both stand in one
        order, and each model draws its own images and those that it was given."""
        both = AveragePrecisionStatistic(
            tuple(a.beside(b) for a, b in zip(self.pools, other.pools, strict=True)),
            np.concatenate([self.units, self.size + other.units]),
            self.thresholds,
        )
        kept = 1 - swapped
        return both(np.concatenate([kept, swapped], axis=1)), both(np.concatenate([swapped, kept], axis=1))

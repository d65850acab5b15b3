"""Instances on the test split: counts by image, and their scores for metrics.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segpipe.evaluation.metric_lookup import interval_of
from segpipe.evaluation.metrics_file import DIGITS, ClassInstanceScores, ConfidenceBounds, InstanceScores
from segpipe.evaluation.scores import Scores
from segpipe.metrics import micro, per_class
from segpipe.metrics.average_precision import AveragePrecision, AveragePrecisionCounter, MatchedImage
from segpipe.metrics.detections import Detections
from segpipe.metrics.instances import (
    InstanceCounts,
    InstanceMasks,
    challenge_score,
    count_instances,
    panoptic_quality,
)
from segpipe.samples import IGNORE, Prediction, Sample

if TYPE_CHECKING:
    from segpipe.config import EvaluateParams


@dataclass(frozen=True)
class ComparedInstances:
    """The true and predicted instances of one image, compared.

    Attributes:
        counts: true, predicted and matched instances.
        image: the matches of the predictions, for average precision.
        is_2d: whether it is an image, not a volume.
    """

    counts: InstanceCounts
    image: MatchedImage
    is_2d: bool

    @property
    def detections(self) -> Detections:
        """The predicted instances, of any size."""
        return self.image.detections[0]


@dataclass
class InstanceCounter:
    """Collects the instances of a split: the matches of each image, for average precision."""

    n_classes: int
    _precision: AveragePrecisionCounter = field(init=False)

    def __post_init__(self) -> None:
        self._precision = AveragePrecisionCounter(self.n_classes)

    def compare(self, sample: Sample, prediction: Prediction) -> ComparedInstances | None:
        """Match the instances of one image; may run in several threads.

        Args:
            sample: the image with its labels.
            prediction: the prediction of the model.

        Returns:
            The matches; None if the image or the prediction has no instances.
        """
        if sample.instances is None or sample.labels is None or prediction.instances is None:
            return None
        truth, predicted = (InstanceMasks.from_instances(i) for i in (sample.true_instances(), prediction.instances))
        ignored = sample.labels == IGNORE
        counts = count_instances(truth, predicted, self.n_classes, ignored)
        return ComparedInstances(counts, self._precision.match(truth, predicted, ignored), ignored.ndim == 2)

    def add(self, compared: ComparedInstances) -> None:
        """Add an image, in the order of the images. Volumes have no average precision."""
        if compared.is_2d:
            self._precision.keep(compared.image)

    def average_precision(self) -> AveragePrecision:
        """Compute COCO's mask AP of the images added so far."""
        return self._precision.result()


def instance_scores(scores: Scores, counter: InstanceCounter, params: EvaluateParams) -> InstanceScores | None:
    """Compute the instance scores of a split, for metrics.json.

    Args:
        scores: the counts of the images.
        counter: the matches of the same images, for average precision.
        params: the number of resamples and the confidence of intervals.

    Returns:
        The scores; None if instances were not counted.
    """
    if scores.instances is None or scores.instance_iou is None:
        return None
    precision = counter.average_precision()
    total = InstanceCounts(scores.instances.sum(0), scores.instance_iou.sum(0))
    quality = panoptic_quality(total)
    pairs = zip(scores.instances, scores.instance_iou, strict=True)
    challenge = [challenge_score(InstanceCounts(tallies, iou_sum)) for tallies, iou_sum in pairs]
    values = {
        "ap": precision.ap,
        "ap50": precision.ap50,
        "ap75": precision.ap75,
        **{f"ap_{name}": value for name, value in precision.by_size.items()},
        "recall": precision.recall,
        "f1_50": float(micro("dice", total.tallies[0])),
        "challenge": _mean(np.array(challenge)),
        "pq": _mean(quality.pq),
        "sq": _mean(quality.sq),
        "rq": _mean(quality.rq),
    }
    f1 = interval_of("instance.f1_50", scores, params)
    bounds = ConfidenceBounds(low=round(f1.low, DIGITS), high=round(f1.high, DIGITS))
    return InstanceScores(
        **_rounded(values),
        by_class=_scores_by_class(scores.classes, precision, total),
        n_true=int(total.tallies[0, 1].sum()),
        n_predicted=int(total.tallies[0, 2].sum()),
        interval=None if np.isnan(f1.low) else {"f1_50": bounds},
    )


def _scores_by_class(
    classes: list[str], precision: AveragePrecision, total: InstanceCounts
) -> dict[str, ClassInstanceScores]:
    """Compute the scores of each class; a class without instances is left out."""
    quality, f1 = panoptic_quality(total), per_class("dice", total.tallies[0])
    columns = {
        "ap": precision.ap_of_class,
        "recall": precision.recall_of_class,
        "f1_50": f1,
        "pq": quality.pq,
        "sq": quality.sq,
        "rq": quality.rq,
    }
    rows = [_rounded({key: float(column[index]) for key, column in columns.items()}) for index in range(len(classes))]
    return {name: ClassInstanceScores(**row) for name, row in zip(classes, rows, strict=True) if row}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """Round the values that exist."""
    return {name: round(value, DIGITS) for name, value in values.items() if not np.isnan(value)}


def _mean(values: np.ndarray) -> float:
    """Compute the mean without NaN; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

"""Objects on the test split: counts by image, and what metrics.json tells of them under `instance`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.evaluation.metric_lookup import interval_of
from segpipe.evaluation.scores import Scores
from segpipe.metrics import micro, per_class
from segpipe.metrics.average_precision import AveragePrecisionCounter, MatchedImage
from segpipe.metrics.detections import Detections
from segpipe.metrics.instances import InstanceCounts, InstanceMasks, challenge_score, count_instances, panoptic_quality
from segpipe.samples import IGNORE, Prediction, Sample

if TYPE_CHECKING:
    from segpipe.config import EvaluateParams

_DIGITS = 6


@dataclass(frozen=True)
class ComparedInstances:
    """How the objects of one image match."""

    score: InstanceCounts
    image: MatchedImage
    flat: bool
    """Whether it is no volume."""

    @property
    def detections(self) -> Detections:
        """The predicted objects, of any size."""
        return self.image.detections[0]


@dataclass
class InstanceCounter:
    """Collects the objects of a split. Of each image its counts and matches are kept."""

    n_classes: int
    _precision: AveragePrecisionCounter = field(init=False)

    def __post_init__(self) -> None:
        self._precision = AveragePrecisionCounter(self.n_classes)

    def compare(self, sample: Sample, found: Prediction) -> ComparedInstances | None:
        """Match one image's objects; None where truth or prediction tells none apart. May run in several threads."""
        if sample.instances is None or sample.labels is None or found.instances is None:
            return None
        truth, said = (InstanceMasks.from_instances(objects) for objects in (sample.objects(), found.instances))
        ignored = sample.labels == IGNORE
        score = count_instances(truth, said, self.n_classes, ignored)
        return ComparedInstances(score, self._precision.match(truth, said, ignored), ignored.ndim == 2)

    def add(self, compared: ComparedInstances) -> None:
        """Keep an image for average precision; in the order of the images."""
        if compared.flat:
            self._precision.keep(compared.image)

    def average_precision(self, classes: list[str]) -> dict[str, Any]:
        """COCO's mask AP of the images added, by the keys of metrics.json."""
        found = self._precision.result()
        by_size = {f"ap_{name}": value for name, value in found.by_size.items()}
        whole = {"ap": found.ap, "ap50": found.ap50, "ap75": found.ap75, **by_size, "recall": found.recall}
        own = zip(classes, found.ap_of_class.tolist(), found.recall_of_class.tolist(), strict=True)
        return _known(whole) | {"class": {name: _known({"ap": ap, "recall": recall}) for name, ap, recall in own}}


def instance_scores(scores: Scores, counter: InstanceCounter, params: EvaluateParams) -> dict[str, Any]:
    """What metrics.json tells under `instance`; empty where objects were not counted.

    ap, ap50, ap75, ap_small ..: COCO's. f1_50: of all objects at IoU 0.5, as one dataset, with its bounds under `interval`.
    challenge: the score of the 2018 Data Science Bowl, a mean over images. pq, sq, rq: panoptic quality, mean over classes.
    true, found: numbers of objects. class: the same by class, without those that have no objects.
    """
    if scores.objects is None or scores.object_iou is None:
        return {}
    total = InstanceCounts(scores.objects.sum(0), scores.object_iou.sum(0))
    quality, f1 = panoptic_quality(total), per_class("dice", total.tallies[0])
    of_images = [challenge_score(InstanceCounts(*pair)) for pair in zip(scores.objects, scores.object_iou, strict=True)]
    table = counter.average_precision(scores.classes)
    table |= _known(
        {
            "f1_50": float(micro("dice", total.tallies[0])),
            "challenge": _mean(np.array(of_images)),
            "pq": _mean(quality.pq),
            "sq": _mean(quality.sq),
            "rq": _mean(quality.rq),
        }
    )
    table |= {"true": int(total.tallies[0, 1].sum()), "found": int(total.tallies[0, 2].sum())}
    for place, name in enumerate(scores.classes):
        own = {"f1_50": f1[place], "pq": quality.pq[place], "sq": quality.sq[place], "rq": quality.rq[place]}
        table["class"][name] |= _known({key: float(value) for key, value in own.items()})
    table["class"] = {name: own for name, own in table["class"].items() if own}
    sure = interval_of("instance.f1_50", scores, params)
    if not np.isnan(sure.low):
        table["interval"] = {"f1_50": {"low": round(sure.low, _DIGITS), "high": round(sure.high, _DIGITS)}}
    return table


def _known(values: dict[str, float]) -> dict[str, Any]:
    return {name: round(value, _DIGITS) for name, value in values.items() if not np.isnan(value)}


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

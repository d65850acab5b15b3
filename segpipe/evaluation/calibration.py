"""How far a model's confidence can be relied on: calibration errors with intervals, and the temperature that mends them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import EvaluateParams
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval, SumStatistic, bootstrap, resampling_units
from segpipe.metrics import Values
from segpipe.metrics.calibration import (
    PixelSample,
    Reliability,
    apply_temperature,
    class_reliability,
    fit_temperature,
    logits_of,
    reliability,
)
from segpipe.progress import track
from segpipe.samples import Sample

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

MAX_PROBABILITIES = 1 << 28
"""Probabilities of an image (classes x pixels, a gigabyte of float32): of a larger one only the classes are asked for."""

_SEEN = 1 << 16
"""Pixels of an image that its `Seen` rests on: classes times as many numbers are binned."""

_FIT_IMAGES = 64
"""Validation images that a temperature is fitted on, spread evenly: it is one number."""


def probabilities_fit_in_memory(sample: Sample, n_classes: int) -> bool:
    """Whether all probabilities of an image fit into memory (`MOST_VALUES`)."""
    return bool(n_classes * sample.image[..., 0].size <= MAX_PROBABILITIES)


def image_reliability(truth: np.ndarray, probabilities: np.ndarray) -> Values:
    """(3, bins): pixels, summed confidence and hits by bin of confidence, of one image. truth: (...), class ids;
    probabilities: (n_classes, ...)."""
    found = reliability(truth, probabilities)
    confidence = found.confidence.round(4)  # the last digits of sums over pixels are not the same on all machines
    return np.concatenate([found.count, confidence, found.hits]).astype(np.float64)


@dataclass(frozen=True)
class ImageCalibration:
    """What one image adds to `Confidences`, from `_SEEN` of its pixels at the most, evenly spread.

    before: as confident as the network is by itself; shipped: as the temperature makes it; by_class: that, of every class.
    """

    before: Reliability
    shipped: Reliability
    by_class: Reliability

    @classmethod
    def of(cls, truth: np.ndarray, probabilities: np.ndarray, temperature: float) -> ImageCalibration:
        """truth: (...), class ids; probabilities: (n_classes, ...), as shipped, which is at this temperature."""
        every = (slice(None, None, max(1, math.ceil((truth.size / _SEEN) ** (1 / truth.ndim)))),) * truth.ndim
        truth, said = truth[every], probabilities[(slice(None), *every)]
        shipped = reliability(truth, said)
        before = shipped if temperature == 1 else reliability(truth, apply_temperature(said, 1 / temperature))
        return cls(before, shipped, class_reliability(truth, said))

    def __add__(self, other: ImageCalibration) -> ImageCalibration:
        return ImageCalibration(
            self.before + other.before, self.shipped + other.shipped, self.by_class + other.by_class
        )


class CalibrationCounter:
    """What images have shown together; None before the first."""

    def __init__(self) -> None:
        self.seen: ImageCalibration | None = None

    def add(self, image: ImageCalibration) -> None:
        """Take in one more image."""
        self.seen = image if self.seen is None else self.seen + image

    def table(self, classes: Sequence[str]) -> dict[str, Any]:
        """What metrics.json tells: `thinned` (the expected and largest calibration errors `before` and as `shipped`, on the
        same pixels) and `class`, the error of every class's own probability. Empty where no pixel counts."""
        if self.seen is None or not self.seen.shipped.count.any():
            return {}
        thinned = {
            name: {
                "ece": round(float(of.expected_error()[0]), 6),
                "mce": round(float(of.largest_error()[0]), 6),
                "curve": _curve(of),
            }
            for name, of in (("before", self.seen.before), ("shipped", self.seen.shipped))
        }
        errors = self.seen.by_class.expected_error().round(6).tolist()
        return {"thinned": thinned, "class": dict(zip(classes, errors, strict=True))}


def summed_reliability(scores: Scores) -> Reliability | None:
    """The histogram of all images; None where confidences were not counted."""
    if scores.reliability is None:
        return None
    count, confidence, hits = np.nansum(scores.reliability, axis=0)[:, None]
    return Reliability(count.astype(np.int64), confidence, hits.astype(np.int64))


def calibration_interval(scores: Scores, params: EvaluateParams) -> Interval | None:
    """The expected calibration error of the dataset and its interval, by resampling images or groups; None where confidences
    were not counted. The error of few pixels is too high on average, so its upper bound errs on the safe side."""
    if scores.reliability is None:
        return None
    units = resampling_units(scores.groups)
    bins = scores.reliability.shape[-1]
    columns = np.zeros((int(units.max(initial=-1)) + 1, 3 * bins))
    np.add.at(columns, units, np.nan_to_num(scores.reliability.reshape(len(units), 3 * bins)))
    return bootstrap(SumStatistic(columns, _expected_error), len(columns), params.resamples, params.confidence)


def _expected_error(sums: Values) -> Values:
    """(..., 3 * bins) sums -> (...): Σ |confidence - hits| / pixels, NaN where no pixel counts."""
    count, confidence, hits = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    total = count.sum(-1)
    gap = np.abs(confidence - hits).sum(-1)
    return np.divide(gap, total, out=np.full(total.shape, np.nan), where=total > 0)


def calibration_scores(scores: Scores, params: EvaluateParams) -> dict[str, object]:
    """What metrics.json tells: ece with its bounds, mce, and the reliability curve as numbers by bin (an empty bin has none)."""
    found, total = calibration_interval(scores, params), summed_reliability(scores)
    if found is None or total is None or np.isnan(found.estimate):
        return {}
    sure = {side: round(v, 6) for side, v in (("low", found.low), ("high", found.high)) if not np.isnan(v)}
    return {
        "ece": round(found.estimate, 6),
        "interval": sure,
        "mce": round(float(total.largest_error()[0]), 6),
        "curve": _curve(total),
    }


def _curve(total: Reliability) -> list[dict[str, float]]:
    """A list, which DVC leaves out of its tables of metrics."""
    mean, share = (rows[0] for rows in total.curve())
    return [
        {
            "bin": int(place),
            "pixels": int(total.count[0, place]),
            "confidence": round(float(mean[place]), 6),
            "right": round(float(share[place]), 6),
        }
        for place in np.flatnonzero(total.count[0])
    ]


def fit_temperature_on(segmenter: Segmenter, reader: ShardReader) -> float | None:
    """The temperature that makes the labels of a validation split likeliest, from `_FIT_IMAGES` of its images, spread evenly
    over it, to six digits; None where no pixel of them is labelled, and where classes overlap, whose probabilities a single
    temperature of one softmax says nothing of. Never to be asked of the test split."""
    if segmenter.spec.classes.overlapping:
        return None
    n_classes = len(segmenter.spec.classes)
    pixels = PixelSample(n_classes)
    places = np.unique(np.linspace(0, len(reader) - 1, min(len(reader), _FIT_IMAGES)).astype(int)).tolist()
    for sample in track((reader[i] for i in places), "temperature", len(places)):
        if sample.labels is None or not probabilities_fit_in_memory(sample, n_classes):
            continue
        said = segmenter.segment(sample, probabilities=True).probabilities
        assert said is not None, "they were asked for"
        pixels.add(sample.labels, said)
    return round(fit_temperature(pixels.truth, logits_of(pixels.scores)), 6) if pixels.truth.size else None

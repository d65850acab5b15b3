"""Calibration of a model's confidences: errors with intervals, and the temperature that corrects them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segpipe.concurrency import map_ahead
from segpipe.config import EvaluateParams
from segpipe.evaluation.metrics_file import (
    DIGITS,
    CalibrationBin,
    CalibrationErrors,
    CalibrationScores,
    ConfidenceBounds,
    ThinnedCalibration,
)
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval, SumStatistic, bootstrap, resampling_units
from segpipe.inference.images_at_once import fitting_images, parallel_jobs
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
"""Probabilities of an image (classes x pixels, a gigabyte of float32); for larger images only the class ids are predicted."""

_THINNED_PIXELS = 1 << 16
"""Pixels of an image that `ImageCalibration` counts: classes times as many numbers are sorted into bins."""

_TEMPERATURE_IMAGES = 64
"""Validation images on which the temperature is fitted, spread evenly: it is a single number."""


def probabilities_fit_in_memory(sample: Sample, n_classes: int) -> bool:
    """Return whether an image has at most `MAX_PROBABILITIES` probabilities."""
    return bool(n_classes * sample.image[..., 0].size <= MAX_PROBABILITIES)


def image_reliability(truth: np.ndarray, probabilities: np.ndarray) -> Values:
    """Count the pixels of one image by confidence.

    Args:
        truth: (...), class ids and `IGNORE`.
        probabilities: (n_classes, ...), 0..1.

    Returns:
        (3, bins): pixels, summed confidence and hits.
    """
    histogram = reliability(truth, probabilities)
    confidence = histogram.confidence.round(4)  # the last digits of sums over pixels differ between machines
    return np.concatenate([histogram.count, confidence, histogram.hits]).astype(np.float64)


@dataclass(frozen=True)
class ImageCalibration:
    """The confidences of one image, from at most `_THINNED_PIXELS` of its pixels, spread evenly.

    Attributes:
        before: of the most probable class, without the temperature.
        shipped: the same, with the temperature of the model.
        by_class: of every class, with the temperature.
    """

    before: Reliability
    shipped: Reliability
    by_class: Reliability

    @classmethod
    def of(cls, truth: np.ndarray, probabilities: np.ndarray, temperature: float) -> ImageCalibration:
        """Count the confidences of one image.

        Args:
            truth: (...), class ids and `IGNORE`.
            probabilities: (n_classes, ...), as the model predicts them, with its temperature applied.
            temperature: that temperature.
        """
        step = max(1, math.ceil((truth.size / _THINNED_PIXELS) ** (1 / truth.ndim)))
        thinned = (slice(None, None, step),) * truth.ndim
        truth, probabilities = truth[thinned], probabilities[(slice(None), *thinned)]
        shipped = reliability(truth, probabilities)
        before = shipped
        if temperature != 1:
            before = reliability(truth, apply_temperature(probabilities, 1 / temperature))
        return cls(before, shipped, class_reliability(truth, probabilities))

    def __add__(self, other: ImageCalibration) -> ImageCalibration:
        return ImageCalibration(
            self.before + other.before, self.shipped + other.shipped, self.by_class + other.by_class
        )


class CalibrationCounter:
    """The sum of the confidences of images; `total` is None before the first image."""

    def __init__(self) -> None:
        self.total: ImageCalibration | None = None

    def add(self, image: ImageCalibration) -> None:
        """Add an image."""
        self.total = image if self.total is None else self.total + image

    def scores(self, classes: Sequence[str]) -> tuple[ThinnedCalibration, dict[str, float]] | None:
        """Compute the calibration of the thinned pixels.

        Args:
            classes: the names of the classes.

        Returns:
            The calibration errors before and after the temperature, on the same pixels, and the expected calibration error of each
            class's own probability. None if no pixel was counted.
        """
        if self.total is None or not self.total.shipped.count.any():
            return None
        errors = self.total.by_class.expected_error().round(DIGITS).tolist()
        thinned = ThinnedCalibration(before=_errors(self.total.before), shipped=_errors(self.total.shipped))
        return thinned, dict(zip(classes, errors, strict=True))


def _errors(histogram: Reliability) -> CalibrationErrors:
    return CalibrationErrors(
        ece=round(float(histogram.expected_error()[0]), DIGITS),
        mce=round(float(histogram.largest_error()[0]), DIGITS),
        curve=_curve(histogram),
    )


def summed_reliability(scores: Scores) -> Reliability | None:
    """Return the histogram of all images; None if confidences were not counted."""
    if scores.reliability is None:
        return None
    count, confidence, hits = np.nansum(scores.reliability, axis=0)[:, None]
    return Reliability(count.astype(np.int64), confidence, hits.astype(np.int64))


def calibration_interval(scores: Scores, params: EvaluateParams) -> Interval | None:
    """Compute the expected calibration error of a split and its interval, by resampling images or groups.

    The error of few pixels is too high on average, so its upper bound errs on the safe side.

    Args:
        scores: the counts of the images.
        params: the number of resamples and the confidence.

    Returns:
        The interval; None if confidences were not counted.
    """
    if scores.reliability is None:
        return None
    units = resampling_units(scores.groups)
    bins = scores.reliability.shape[-1]
    columns = np.zeros((int(units.max(initial=-1)) + 1, 3 * bins))
    np.add.at(columns, units, np.nan_to_num(scores.reliability.reshape(len(units), 3 * bins)))
    return bootstrap(SumStatistic(columns, _expected_error), len(columns), params.resamples, params.confidence)


def _expected_error(sums: Values) -> Values:
    """Compute Σ |confidence - hits| / pixels from sums: (..., 3 * bins) -> (...), NaN if no pixel counts."""
    count, confidence, hits = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    total = count.sum(-1)
    gap = np.abs(confidence - hits).sum(-1)
    return np.divide(gap, total, out=np.full(total.shape, np.nan), where=total > 0)


def calibration_scores(
    scores: Scores, params: EvaluateParams, confidences: CalibrationCounter | None = None
) -> CalibrationScores | None:
    """Compute the calibration of a model on a split, for metrics.json.

    Args:
        scores: the counts of the images.
        params: the number of resamples and the confidence.
        confidences: the thinned pixels of the split, for the errors before the temperature and by class.

    Returns:
        The errors, their bounds and the reliability curve; None if confidences were not counted.
    """
    interval, histogram = calibration_interval(scores, params), summed_reliability(scores)
    result = CalibrationScores()
    if interval is not None and histogram is not None and not np.isnan(interval.estimate):
        bounds = {"low": interval.low, "high": interval.high}
        result = CalibrationScores(
            ece=round(interval.estimate, DIGITS),
            interval=ConfidenceBounds(**{k: round(v, DIGITS) for k, v in bounds.items() if not np.isnan(v)}),
            mce=round(float(histogram.largest_error()[0]), DIGITS),
            curve=_curve(histogram),
        )
    if confidences and (thinned_scores := confidences.scores(scores.classes)):
        thinned, by_class = thinned_scores
        result = result.model_copy(update={"thinned": thinned, "by_class": by_class})
    return None if result == CalibrationScores() else result


def _curve(histogram: Reliability) -> list[CalibrationBin]:
    """Return the reliability curve, one entry per bin that is not empty."""
    mean, share = (rows[0] for rows in histogram.curve())
    return [
        CalibrationBin(
            bin=int(index),
            pixels=int(histogram.count[0, index]),
            confidence=round(float(mean[index]), DIGITS),
            right=round(float(share[index]), DIGITS),
        )
        for index in np.flatnonzero(histogram.count[0])
    ]


def fit_temperature_on(segmenter: Segmenter, reader: ShardReader) -> float | None:
    """Fit the temperature that makes the labels of the validation split most likely.

    Args:
        segmenter: the model.
        reader: the validation split, never the test split. `_TEMPERATURE_IMAGES` of its images are used, spread evenly.

    Returns:
        The temperature, rounded to six decimals. None if these pixels have fewer than two classes, because confidence without bound would
        then fit best; or if classes overlap: one temperature of
        one softmax means nothing for their probabilities.
    """
    if segmenter.spec.classes.overlapping:
        return None
    n_classes = len(segmenter.spec.classes)
    pixels = PixelSample(n_classes)
    count = min(len(reader), _TEMPERATURE_IMAGES)
    indices = np.unique(np.linspace(0, len(reader) - 1, count).astype(int)).tolist()
    jobs, ahead = parallel_jobs(segmenter), 1

    def samples() -> Iterator[Sample]:
        nonlocal ahead
        for sample in track((reader[i] for i in indices), "temperature", len(indices)):
            if sample.labels is not None and probabilities_fit_in_memory(sample, n_classes):
                ahead = min(jobs, fitting_images(segmenter.spec, sample))
                yield sample

    def predict(sample: Sample) -> npt.NDArray[np.float32]:
        probabilities = segmenter.segment(sample, probabilities=True).probabilities
        assert probabilities is not None, "they were requested"
        return probabilities

    for sample, future in map_ahead(predict, samples(), jobs, lambda: ahead):
        assert sample.labels is not None
        pixels.add(sample.labels, future.result())
    return (
        round(fit_temperature(pixels.truth, logits_of(pixels.scores)), 6) if len(np.unique(pixels.truth)) > 1 else None
    )

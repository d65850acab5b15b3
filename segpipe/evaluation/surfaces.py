"""Distances between the surfaces of truth and prediction, by image and class, and their means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segpipe.config import EvaluateParams
from segpipe.evaluation.metrics_file import DIGITS, ClassDistances, ConfidenceBounds, SurfaceScore, SurfaceScores
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import bootstrap_all, mean_statistic, resampling_units
from segpipe.labels import Labelling
from segpipe.metrics import Values
from segpipe.metrics.surface import SURFACE_SCORES, surface_scores
from segpipe.samples import Sample

MAX_PIXELS = 1 << 24
"""The surfaces of larger images and volumes are measured only if the settings ask for it: they take some ten seconds per class."""


@dataclass(frozen=True)
class SurfaceRule:
    """The images whose surfaces are measured, and the tolerance of the surface Dice.

    Attributes:
        tolerance: in mm; in pixels if the image has no voxel size.
        max_pixels: larger images are not measured.
    """

    tolerance: float
    max_pixels: float

    @classmethod
    def from_params(cls, params: EvaluateParams) -> SurfaceRule:
        """Make the rule from the settings `surface` and `surface_tolerance`."""
        max_pixels = {"auto": MAX_PIXELS, True: np.inf, False: 0}[params.surface]
        return cls(params.surface_tolerance, max_pixels)

    def measure(self, sample: Sample, class_ids: np.ndarray, classes: int | Labelling) -> Values | None:
        """Compute the surface scores of one labelled image.

        Args:
            sample: the image, 2D or 3D.
            class_ids: the prediction, of the shape of the labels.
            classes: the meaning of the labels, or the number of class ids.

        Returns:
            (3, n_classes), `SURFACE_SCORES`; None if the image is too large.
        """
        assert sample.labels is not None, "only labelled images are scored"
        if sample.labels.size > self.max_pixels:
            return None
        values = surface_scores(sample.labels, class_ids, classes, self.tolerance, sample.spacing)
        return values.round(DIGITS)


def surface_summary(scores: Scores, params: EvaluateParams) -> SurfaceScores | None:
    """Summarise the surface scores of a split, for metrics.json.

    Args:
        scores: the counts of the images.
        params: the number of resamples and the confidence of intervals.

    Returns:
        Means over images, with bounds. None if no image was measured, or if some lengths are in mm and others in pixels, which have no
        mean.
    """
    if scores.surface is None:
        return None
    measured = ~np.isnan(scores.surface).all(axis=(1, 2))
    units = set(scores.millimetres[measured].tolist())
    if len(units) != 1:
        return None
    by_image = _mean(scores.surface, axis=2)
    drawn = resampling_units(scores.groups)
    intervals = bootstrap_all(
        [mean_statistic(by_image[:, index], drawn) for index in range(len(SURFACE_SCORES))],
        int(drawn.max(initial=-1)) + 1,
        params.resamples,
        params.confidence,
    )
    means: dict[str, SurfaceScore] = {}
    bounds: dict[str, ConfidenceBounds] = {}
    for index, (name, interval) in enumerate(zip(SURFACE_SCORES, intervals, strict=True)):
        class_means = zip(scores.classes, _mean(scores.surface[:, index], axis=0).tolist(), strict=True)
        by_class = {class_name: round(mean, DIGITS) for class_name, mean in class_means if not np.isnan(mean)}
        means[name] = SurfaceScore(image=ClassDistances(macro=round(interval.estimate, DIGITS), by_class=by_class))
        if not np.isnan(interval.low):
            bounds[name] = ConfidenceBounds(low=round(interval.low, DIGITS), high=round(interval.high, DIGITS))
    return SurfaceScores(images=int(measured.sum()), millimetres=int(units.pop()), interval=bounds, **means)


def _mean(values: Values, axis: int) -> Values:
    """Compute the mean along an axis, without NaN; NaN if nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)

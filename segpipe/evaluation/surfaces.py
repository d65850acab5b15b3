"""Distances between the surfaces of truth and prediction, by image and class, and their means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.config import EvaluateParams
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import bootstrap_all, mean_statistic, resampling_units
from segpipe.labels import Labelling
from segpipe.metrics import Values
from segpipe.metrics.surface import SURFACE_SCORES, surface_scores
from segpipe.samples import Sample

MAX_PIXELS = 1 << 24
"""Of a larger image or volume, surfaces are measured only where that is asked for: some ten seconds a class."""

_DIGITS = 6


@dataclass(frozen=True)
class SurfaceRule:
    """Of which images surfaces are measured, and how near is near (mm, or pixels where an image knows no mm)."""

    tolerance: float
    most_pixels: float

    @classmethod
    def of(cls, params: EvaluateParams) -> SurfaceRule:
        """The rule that params.yaml asks for."""
        most = {"auto": MAX_PIXELS, True: np.inf, False: 0}[params.surface]
        return cls(params.surface_tolerance, most)

    def measure(self, sample: Sample, class_ids: np.ndarray, classes: int | Labelling) -> Values | None:
        """(3, n_classes): `SURFACE_SCORES` of one labelled image of any dimension; None of one that is too large."""
        assert sample.labels is not None, "only labelled images are scored"
        if sample.labels.size > self.most_pixels:
            return None
        found = surface_scores(sample.labels, class_ids, classes, self.tolerance, sample.spacing)
        return found.round(_DIGITS)


def surface_summary(scores: Scores, params: EvaluateParams) -> dict[str, Any]:
    """What metrics.json tells: NAME.image.macro (the mean over classes within each image, then over images), its bounds
    under `interval`, NAME.image.class.CLASS, how many images were measured (`images`) and whether in mm (`millimetres`, 0 or 1).

    Lengths in mm and in pixels have no mean: where a dataset has both, it has no lengths, and no surface Dice either.
    """
    if scores.surface is None:
        return {}
    measured = ~np.isnan(scores.surface).all(axis=(1, 2))
    units = set(scores.millimetres[measured].tolist())
    if len(units) != 1:
        return {}
    table: dict[str, Any] = {"images": int(measured.sum()), "millimetres": int(units.pop()), "interval": {}}
    of_images = _mean(scores.surface, axis=2)
    drawn = resampling_units(scores.groups)
    bounds = bootstrap_all(
        [mean_statistic(of_images[:, place], drawn) for place in range(len(SURFACE_SCORES))],
        int(drawn.max(initial=-1)) + 1,
        params.resamples,
        params.confidence,
    )
    for place, name in enumerate(SURFACE_SCORES):
        of_classes = zip(scores.classes, _mean(scores.surface[:, place], axis=0).tolist(), strict=True)
        table[name] = {
            "image": {
                "macro": round(bounds[place].estimate, _DIGITS),
                "class": {c: round(value, _DIGITS) for c, value in of_classes if not np.isnan(value)},
            }
        }
        if not np.isnan(bounds[place].low):
            table["interval"][name] = {side: round(getattr(bounds[place], side), _DIGITS) for side in ("low", "high")}
    return table


def _mean(values: Values, axis: int) -> Values:
    """The mean of what is not NaN; NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)

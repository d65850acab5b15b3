"""How sure a score is: bootstrap intervals over images, or over groups of images that belong together.

A resample draws as many units as there are, with replacement; all that a score needs of it is how often each unit was drawn.
So 2,000 resamples are one product of a matrix of multiplicities with the tallies of the units. Pixels of an image, and
images of a patient or a video, are not independent: resampling them one by one would give intervals that are far too narrow
(Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007).

Intervals are bias-corrected and accelerated, BCa: Efron, "Better bootstrap confidence intervals", JASA 82, 1987.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.metrics import Metric, Tallies, Values

SEED = 20_260
"""The intervals of a run are the same every time."""

FEWEST_GROUPS = 6
"""With fewer groups than this, resampling groups says nothing: images are resampled instead."""

_CHUNK = 1 << 21
"""Multiplicities that are held at once: 16 MiB."""

_ROWS = 1024
"""Resamples in a pass at the most, whatever the number of units: a score over 250 classes holds 750 numbers for each."""

Statistic = Callable[[Values], Values]
"""Multiplicities (resamples, units) -> scores (resamples,), NaN where a score does not exist."""


@dataclass(frozen=True)
class Interval:
    """A score and its confidence interval. `low` and `high` are NaN where fewer than two units leave nothing to resample."""

    estimate: float
    low: float
    high: float
    confidence: float
    units: int

    @property
    def one_sided(self) -> float:
        """The confidence with which the value is at least `low`: 0.975 for an interval of 0.95."""
        return 1 - (1 - self.confidence) / 2


def resampling_units(groups: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """The unit (0, 1, ...) that each image is drawn with: its group where there are enough groups, else the image itself."""
    known = {g for g in groups if g is not None}
    if len(known) < FEWEST_GROUPS:
        return np.arange(len(groups))
    places: dict[str, int] = {}
    return np.array(
        [places.setdefault(f"g{g}" if g is not None else f"i{i}", len(places)) for i, g in enumerate(groups)]
    )


def statistic(metric: Metric, tally: Tallies, units: npt.NDArray[np.int64]) -> Statistic:
    """A metric as a function of how often each unit was drawn.

    tally: (images, 3, n_classes). units: (images,), from `resampling_units`.
    """
    if metric.level == "dataset":
        shape = tally.shape[1:]
        columns = _sum_by_unit(tally.reshape(len(tally), shape[0] * shape[1]), units)
        return lambda weights: metric.of((weights @ columns).reshape(-1, *shape))
    each = metric.of(tally)
    there = ~np.isnan(each)
    columns = _sum_by_unit(np.stack([np.where(there, each, 0.0), there], axis=1), units)

    def mean(weights: Values) -> Values:
        total = weights @ columns
        return np.divide(total[:, 0], total[:, 1], out=np.full(len(total), np.nan), where=total[:, 1] > 0)

    return mean


def _sum_by_unit(columns: npt.NDArray[np.number], units: npt.NDArray[np.int64]) -> Values:  # type: ignore[type-arg]
    total = np.zeros((int(units.max()) + 1 if units.size else 0, columns.shape[1]))
    np.add.at(total, units, columns)
    return total


def interval(
    metric: Metric, tally: Tallies, groups: Sequence[str | None], resamples: int, confidence: float, seed: int = SEED
) -> Interval:
    """The confidence interval of one model's score. tally: (images, 3, n_classes); groups: the group of each image."""
    units = resampling_units(groups)
    return bootstrap(statistic(metric, tally, units), int(units.max(initial=-1)) + 1, resamples, confidence, seed)


def difference(
    metric: Metric,
    tally: Tallies,
    other: Tallies,
    groups: Sequence[str | None],
    resamples: int,
    confidence: float,
    seed: int = SEED,
) -> Interval:
    """The confidence interval of score - other score, of two models on the same images in the same order (paired)."""
    units = resampling_units(groups)
    ours, theirs = statistic(metric, tally, units), statistic(metric, other, units)
    return bootstrap(lambda w: ours(w) - theirs(w), int(units.max(initial=-1)) + 1, resamples, confidence, seed)


def bootstrap(of: Statistic, units: int, resamples: int, confidence: float, seed: int = SEED) -> Interval:
    """The BCa interval of a statistic over `units` units.

    Resamples on which the statistic does not exist are left out. Where BCa is not defined (all resamples on one side of the
    estimate), the percentile interval stands in.
    """
    estimate = float(of(np.ones((1, units)))[0]) if units else float("nan")
    if units < 2 or np.isnan(estimate):
        return Interval(estimate, float("nan"), float("nan"), confidence, units)
    replicates = _replicates(of, units, resamples, seed)
    replicates = replicates[~np.isnan(replicates)]
    levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(replicates, _bca_levels(of, units, estimate, replicates, levels))
    return Interval(estimate, float(low), float(high), confidence, units)


def _replicates(of: Statistic, units: int, resamples: int, seed: int) -> Values:
    rng = np.random.Generator(np.random.PCG64(seed))
    step = _rows(units)
    return np.concatenate(
        [of(_multiplicities(rng, min(step, resamples - i), units)) for i in range(0, resamples, step)]
    )


def _rows(units: int) -> int:
    return min(_ROWS, max(1, _CHUNK // units))


def _multiplicities(rng: np.random.Generator, resamples: int, units: int) -> Values:
    """(resamples, units): how often each unit was drawn in `units` draws."""
    drawn = rng.integers(0, units, (resamples, units)) + units * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


def _bca_levels(of: Statistic, units: int, estimate: float, replicates: Values, levels: Values) -> Values:
    """The quantiles of the replicates that bound the BCa interval (Efron 1987, equations 2.3 and 6.6)."""
    from scipy.special import ndtr, ndtri

    below = ((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2
    if not 0 < below < 1:
        return levels
    bias = ndtri(below)
    acceleration = _acceleration(_leave_one_out(of, units))
    shifted = bias + ndtri(levels)
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)), np.float64)


def _leave_one_out(of: Statistic, units: int) -> Values:
    step = _rows(units)
    parts = []
    for start in range(0, units, step):
        weights = np.ones((min(step, units - start), units))
        weights[np.arange(len(weights)), start + np.arange(len(weights))] = 0
        parts.append(of(weights))
    return np.concatenate(parts)


def _acceleration(left_out: Values) -> float:
    """Skewness of the jackknife values, over 6; 0 where they are all alike."""
    known = left_out[~np.isnan(left_out)]
    deviation = known.mean() - known if known.size else known
    spread = float((deviation**2).sum())
    return float((deviation**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

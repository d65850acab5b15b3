"""Confidence intervals of scores by the bootstrap. Differences of two models: `segpipe.evaluation.paired_statistics`.

A resample draws as many units as there are, with replacement. A score needs to know only how often each unit was drawn, so
10,000 resamples are a few products of a matrix of multiplicities with the counts of the units. The pixels of an image, and the
images of a patient or a video, are not independent: resampling them one by one would give intervals that are far too narrow
(Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007). Therefore units are groups of images if groups are known.

Intervals are bias-corrected and accelerated, BCa: Efron, "Better bootstrap confidence intervals", JASA 82, 1987. Bounds by which a
gate lets a model pass are more conservative (`Resampled.interval`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segpipe.metrics import Metric, Tallies, Values

SEED = 20_260
"""Intervals are the same on every run."""

MIN_GROUPS = 6
"""With fewer groups, images are resampled instead: intervals over so few groups mean nothing."""

_MAX_MULTIPLICITIES = 1 << 21
"""Multiplicities that are held at once: 16 MiB."""

_MAX_RESAMPLES_PER_PASS = 1024
"""Resamples in one pass, whatever the number of units: a score over 250 classes holds 750 numbers for each."""

Statistic = Callable[[Values], Values]
"""Maps multiplicities (resamples, units) to scores (resamples,); NaN if a score does not exist."""


class Exchangeable(Protocol):
    """A statistic whose units can be exchanged with those of another model."""

    @property
    def size(self) -> int:
        """The number of units."""

    @property
    def max_resamples(self) -> int | None:
        """The number of resamples that take seconds; None if any number is cheap."""

    def __call__(self, weights: Values) -> Values:
        """Map multiplicities (resamples, units) to scores (resamples,)."""

    def exchanged(self, other: Any, swapped: Values) -> tuple[Values, Values]:
        """Return the scores of two models after an exchange of the units that are 1 in `swapped`, (resamples, units)."""


@dataclass(frozen=True)
class Interval:
    """A score and its confidence interval.

    Attributes:
        estimate: the score; NaN if it does not exist.
        low: lower bound; NaN if there are fewer than two units to resample.
        high: upper bound; NaN as `low`.
        confidence: of the two-sided interval, such as 0.95.
        units: the number of images, or groups of images, that were resampled.
    """

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
    """Return the unit (0, 1, ...) that each image is drawn with.

    Args:
        groups: the group of each image; None for an image without a group.

    Returns:
        (images,): the group of the image if there are at least `MIN_GROUPS` groups, else the image itself.
    """
    known = {group for group in groups if group is not None}
    if len(known) < MIN_GROUPS:
        return np.arange(len(groups))
    units: dict[str, int] = {}
    return np.array([units.setdefault(f"g{g}" if g is not None else f"i{i}", len(units)) for i, g in enumerate(groups)])


@dataclass(frozen=True)
class SumStatistic:
    """A statistic that depends on sums over units only.

    Attributes:
        columns: (units, k), what each unit adds to the sums.
        function: maps sums (..., k) to scores (...); NaN if a score does not exist.
    """

    columns: Values
    function: Callable[[Values], Values]

    @property
    def size(self) -> int:
        """The number of units."""
        return len(self.columns)

    @property
    def max_resamples(self) -> None:
        """Any number: a resample costs next to nothing."""
        return None

    def __call__(self, weights: Values) -> Values:
        """Map multiplicities (resamples, units) to scores (resamples,)."""
        return self.function(weights @ self.columns)

    def exchanged(self, other: SumStatistic, swapped: Values) -> tuple[Values, Values]:
        """Return the scores of two models after an exchange of the units that are 1 in `swapped`, (resamples, units)."""
        moved = swapped @ (other.columns - self.columns)
        return self.function(self.columns.sum(0) + moved), other.function(other.columns.sum(0) - moved)


def statistic(metric: Metric, tally: Tallies, units: npt.NDArray[np.int64]) -> SumStatistic:
    """Return a metric as a function of how often each unit was drawn.

    Args:
        metric: the metric.
        tally: (images, 3, n_classes), as `segpipe.metrics.tallies` counts them.
        units: (images,), the unit of each image, from `resampling_units`.
    """
    if metric.level == "image":
        return mean_statistic(metric.compute(tally), units)
    shape = tally.shape[1:]
    columns = sum_by_unit(tally.reshape(len(tally), shape[0] * shape[1]), units)
    return SumStatistic(columns, lambda sums: metric.compute(sums.reshape(*sums.shape[:-1], *shape)))


def mean_statistic(values: Values, units: npt.NDArray[np.int64]) -> SumStatistic:
    """Return the mean over images as a function of how often each unit was drawn.

    Args:
        values: (images,), any score of each image, such as a surface distance; images with NaN are left out of the mean.
        units: (images,), the unit of each image.
    """
    known = ~np.isnan(values)
    columns = sum_by_unit(np.stack([np.where(known, values, 0.0), known], axis=1), units)

    def mean(sums: Values) -> Values:
        total, count = sums[..., 0], sums[..., 1]
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    return SumStatistic(columns, mean)


def sum_by_unit(columns: npt.NDArray[np.number[Any]], units: npt.NDArray[np.int64]) -> Values:
    """Sum the rows of the images of each unit: (images, k) -> (units, k). units: (images,)."""
    total = np.zeros((int(units.max()) + 1 if units.size else 0, columns.shape[1]))
    np.add.at(total, units, columns)
    return total


@dataclass(frozen=True)
class Resampled:
    """A statistic with its resampled values.

    Attributes:
        estimate: its value.
        replicates: (resamples,), its values on the resamples on which it exists; empty if it does not exist, or if there are fewer
            than two units.
        left_out: (units,), its values without each unit in turn; empty as `replicates`.
        units: the number of units.
    """

    estimate: float
    replicates: Values
    left_out: Values
    units: int

    def interval(self, confidence: float, conservative: bool = False) -> Interval:
        """Compute the BCa interval; the percentile interval if BCa is not defined (all resamples on one side of the estimate).

        BCa alone is too narrow for few units, and for units of very different weight. A conservative interval reaches as far as
        Student's t instead of the normal distribution, with as many degrees of freedom as there are units that matter,
        (Σ d²)² / Σ d⁴ of the jackknife differences d, at most units - 1 (Satterthwaite, "An approximate distribution of estimates of
        variance components", Biometrics Bulletin 2, 1946; Hesterberg, "What teachers should know about the bootstrap", American
        Statistician 69, 2015).

        Args:
            confidence: of the two-sided interval, such as 0.95.
            conservative: whether to compute the conservative interval.
        """
        from scipy.special import ndtri, stdtrit

        if not self.replicates.size:
            return Interval(self.estimate, float("nan"), float("nan"), confidence, self.units)
        levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
        differences = self.left_out[~np.isnan(self.left_out)]
        differences = differences.mean() - differences if differences.size else differences
        reach = ndtri(levels)
        if conservative and (spread := float((differences**4).sum())) > 0:
            freedom = min(self.units - 1, float((differences**2).sum()) ** 2 / spread)
            reach = stdtrit(freedom, levels) * np.sqrt(self.units / (self.units - 1))
        low, high = np.quantile(self.replicates, self._levels(reach, _acceleration(differences)))
        return Interval(self.estimate, float(low), float(high), confidence, self.units)

    def _levels(self, reach: Values, acceleration: float) -> Values:
        """Return the quantiles of the replicates that bound the BCa interval (Efron 1987, equations 2.3 and 6.6).

        reach: (2,), how many standard errors the interval reaches to either side.
        """
        from scipy.special import ndtr, ndtri

        below = ((self.replicates < self.estimate).mean() + (self.replicates <= self.estimate).mean()) / 2
        if not 0 < below < 1:
            return np.asarray(ndtr(reach), np.float64)
        bias = ndtri(below)
        shifted = bias + reach
        denominator = 1 - acceleration * shifted  # at 0 the bound is infinite, below 0 there is none
        adjusted = np.divide(shifted, denominator, out=np.sign(shifted) * np.inf, where=denominator > 0)
        return np.asarray(ndtr(bias + adjusted), np.float64)


def bootstrap(statistic: Statistic, units: int, resamples: int, confidence: float, seed: int = SEED) -> Interval:
    """Compute the confidence interval of a statistic.

    Args:
        statistic: the statistic.
        units: the number of units that are resampled.
        resamples: the number of resamples.
        confidence: of the two-sided interval, such as 0.95.
        seed: the seed of the random draws.
    """
    return resample([statistic], units, resamples, seed)[0].interval(confidence)


def bootstrap_all(
    statistics: Sequence[Statistic], units: int, resamples: int, confidence: float, seed: int = SEED
) -> list[Interval]:
    """Compute the intervals of several statistics, equal to those of `bootstrap`, whose other parameters it has.

    The resamples are drawn once, which takes longer than most scores.

    Args:
        statistics: the statistics, over the same units.
        units: as in `bootstrap`.
        resamples: as in `bootstrap`.
        confidence: as in `bootstrap`.
        seed: as in `bootstrap`.
    """
    return [resampled.interval(confidence) for resampled in resample(statistics, units, resamples, seed)]


def resample(statistics: Sequence[Statistic], units: int, resamples: int, seed: int = SEED) -> list[Resampled]:
    """Compute several statistics on the same resamples; the parameters are those of `bootstrap_all`."""
    estimates = [float(score(np.ones((1, units)))[0]) if units else float("nan") for score in statistics]
    known = [index for index, estimate in enumerate(estimates) if not np.isnan(estimate)] if units > 1 else []
    results = [Resampled(estimate, np.empty(0), np.empty(0), units) for estimate in estimates]
    replicates = _replicates([statistics[index] for index in known], units, resamples, seed)
    for index, values in zip(known, replicates, strict=True):
        left_out = leave_one_out(statistics[index], units)
        results[index] = Resampled(estimates[index], values[~np.isnan(values)], left_out, units)
    return results


def _replicates(statistics: Sequence[Statistic], units: int, resamples: int, seed: int) -> Values:
    """Compute the statistics on all resamples: (statistics, resamples)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    out = np.empty((len(statistics), resamples))
    step = resamples_per_pass(units)
    for start in range(0, resamples, step):
        weights = _multiplicities(rng, min(step, resamples - start), units)
        for row, score in enumerate(statistics):
            out[row, start : start + step] = score(weights)
    return out


def resamples_per_pass(units: int) -> int:
    """Return how many resamples of this number of units are held in memory at once."""
    return min(_MAX_RESAMPLES_PER_PASS, max(1, _MAX_MULTIPLICITIES // max(1, units)))


def _multiplicities(rng: np.random.Generator, resamples: int, units: int) -> Values:
    """Draw how often each unit occurs in `units` draws: (resamples, units)."""
    drawn = rng.integers(0, units, (resamples, units)) + units * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


def leave_one_out(statistic: Statistic, units: int) -> Values:
    """Compute the statistic without each unit in turn: (units,)."""
    return _in_turn(statistic, units, 1.0, 0.0)


def each_alone(statistic: Statistic, units: int) -> Values:
    """Compute the statistic of each unit alone: (units,)."""
    return _in_turn(statistic, units, 0.0, 1.0)


def _in_turn(statistic: Statistic, units: int, others: float, selected: float) -> Values:
    """Compute the statistic for each unit in turn, with the weight `selected` for it and `others` for all other units."""
    step = resamples_per_pass(units)
    parts = []
    for start in range(0, units, step):
        weights = np.full((min(step, units - start), units), others)
        weights[np.arange(len(weights)), start + np.arange(len(weights))] = selected
        parts.append(statistic(weights))
    return np.concatenate([np.empty(0), *parts])


def _acceleration(differences: Values) -> float:
    """Return the skewness of jackknife differences divided by 6; 0 if all are equal."""
    spread = float((differences**2).sum())
    return float((differences**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

"""How sure a score is: bootstrap intervals. Of differences between two models: `segpipe.evaluation.paired_statistics`.

A resample draws as many units as there are, with replacement; all that a score needs of it is how often each unit was drawn.
So 10,000 resamples are a few products of a matrix of multiplicities with the tallies of the units. Pixels of an image, and
images of a patient or a video, are not independent: resampling them one by one would give intervals that are far too narrow
(Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007). So units are groups of images where groups are known.

Intervals are bias-corrected and accelerated, BCa: Efron, "Better bootstrap confidence intervals", JASA 82, 1987. Bounds that let
a model through are more cautious (`Resampled.interval`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segpipe.metrics import Metric, Tallies, Values

SEED = 20_260
"""The intervals of a run are the same every time."""

MIN_GROUPS = 6
"""With fewer groups than this, resampling groups says nothing: images are resampled instead."""

_CHUNK = 1 << 21
"""Multiplicities that are held at once: 16 MiB."""

_ROWS = 1024
"""Resamples in a pass at the most, whatever the number of units: a score over 250 classes holds 750 numbers for each."""

Statistic = Callable[[Values], Values]
"""Multiplicities (resamples, units) -> scores (resamples,), NaN where a score does not exist."""


class Exchangeable(Protocol):
    """A statistic whose units can be exchanged with those of another model's."""

    @property
    def size(self) -> int:
        """How many units there are."""

    @property
    def most_resamples(self) -> int | None:
        """How many resamples take seconds; None where their number does not matter."""

    def __call__(self, weights: Values) -> Values:
        """Multiplicities (resamples, units) -> scores (resamples,)."""

    def exchanged(self, other: Any, swapped: Values) -> tuple[Values, Values]:
        """The scores of two models after exchanging the units that are 1 in (resamples, units)."""


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
    if len(known) < MIN_GROUPS:
        return np.arange(len(groups))
    places: dict[str, int] = {}
    return np.array(
        [places.setdefault(f"g{g}" if g is not None else f"i{i}", len(places)) for i, g in enumerate(groups)]
    )


@dataclass(frozen=True)
class SumStatistic:
    """A statistic that sees only sums over units: `of` maps (..., k) sums to (...) scores, NaN where one does not exist.

    columns: (units, k), what each unit adds. Called with multiplicities, (resamples, units), it is a `Statistic`.
    """

    columns: Values
    of: Callable[[Values], Values]

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.columns)

    @property
    def most_resamples(self) -> None:
        """A resample costs next to nothing: any number."""
        return None

    def __call__(self, weights: Values) -> Values:
        """Multiplicities (resamples, units) -> scores (resamples,)."""
        return self.of(weights @ self.columns)

    def exchanged(self, other: SumStatistic, swapped: Values) -> tuple[Values, Values]:
        """The scores of two models after exchanging the units that are 1 in (resamples, units)."""
        moved = swapped @ (other.columns - self.columns)
        return self.of(self.columns.sum(0) + moved), other.of(other.columns.sum(0) - moved)


def statistic(metric: Metric, tally: Tallies, units: npt.NDArray[np.int64]) -> SumStatistic:
    """A metric as a function of how often each unit was drawn.

    tally: (images, 3, n_classes). units: (images,), from `resampling_units`.
    """
    if metric.level == "image":
        return mean_statistic(metric.of(tally), units)
    shape = tally.shape[1:]
    columns = sum_by_unit(tally.reshape(len(tally), shape[0] * shape[1]), units)
    return SumStatistic(columns, lambda sums: metric.of(sums.reshape(*sums.shape[:-1], *shape)))


def mean_statistic(values: Values, units: npt.NDArray[np.int64]) -> SumStatistic:
    """The mean over images of any score, (images,), such as a surface distance; images where it is NaN are left out."""
    there = ~np.isnan(values)
    columns = sum_by_unit(np.stack([np.where(there, values, 0.0), there], axis=1), units)

    def mean(sums: Values) -> Values:
        total, count = sums[..., 0], sums[..., 1]
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    return SumStatistic(columns, mean)


def sum_by_unit(columns: npt.NDArray[np.number[Any]], units: npt.NDArray[np.int64]) -> Values:
    """(images, k) -> (units, k), what the images of each unit add up to. units: (images,)."""
    total = np.zeros((int(units.max()) + 1 if units.size else 0, columns.shape[1]))
    np.add.at(total, units, columns)
    return total


@dataclass(frozen=True)
class Resampled:
    """A statistic over `units` units: its value, its values on resamples on which it exists, and those without each unit in turn.
    Without any resamples where it does not exist, or where there are fewer than two units."""

    estimate: float
    replicates: Values
    left_out: Values
    units: int

    def interval(self, confidence: float, cautious: bool = False) -> Interval:
        """The BCa interval. Where BCa is not defined (all resamples on one side of the estimate), the percentile interval.

        cautious: as far out as Student's t reaches instead of the normal distribution, with as many degrees of freedom as there are
        units that matter, (Σ d²)² / Σ d⁴ of the jackknife differences d, at most units - 1 (Satterthwaite, "An approximate distribution
        of estimates of variance components", Biometrics Bulletin 2, 1946; Hesterberg, "What teachers should know about the
        bootstrap", American Statistician 69, 2015). BCa alone is too narrow for few units, and for units of very different weight.
        """
        from scipy.special import ndtri, stdtrit

        if not self.replicates.size:
            return Interval(self.estimate, float("nan"), float("nan"), confidence, self.units)
        levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
        apart = self.left_out[~np.isnan(self.left_out)]
        apart = apart.mean() - apart if apart.size else apart
        reach = ndtri(levels)
        if cautious and (spread := float((apart**4).sum())) > 0:
            freedom = min(self.units - 1, float((apart**2).sum()) ** 2 / spread)
            reach = stdtrit(freedom, levels) * np.sqrt(self.units / (self.units - 1))
        low, high = np.quantile(self.replicates, self._levels(reach, _acceleration(apart)))
        return Interval(self.estimate, float(low), float(high), confidence, self.units)

    def _levels(self, reach: Values, acceleration: float) -> Values:
        """The quantiles of the replicates that bound the BCa interval (Efron 1987, equations 2.3 and 6.6). reach: how many
        standard errors it reaches to either side."""
        from scipy.special import ndtr, ndtri

        below = ((self.replicates < self.estimate).mean() + (self.replicates <= self.estimate).mean()) / 2
        if not 0 < below < 1:
            return np.asarray(ndtr(reach), np.float64)
        bias = ndtri(below)
        shifted = bias + reach
        slack = 1 - acceleration * shifted  # at 0 the bound has gone to infinity, and beyond it is no bound
        far = np.divide(shifted, slack, out=np.sign(shifted) * np.inf, where=slack > 0)
        return np.asarray(ndtr(bias + far), np.float64)


def bootstrap(of: Statistic, units: int, resamples: int, confidence: float, seed: int = SEED) -> Interval:
    """The interval of a statistic over `units` units."""
    return resample([of], units, resamples, seed)[0].interval(confidence)


def bootstrap_all(
    statistics: Sequence[Statistic], units: int, resamples: int, confidence: float, seed: int = SEED
) -> list[Interval]:
    """The intervals of several statistics over the same units, as `bootstrap` gives them, from the same resamples: drawing
    them takes longer than most scores."""
    return [found.interval(confidence) for found in resample(statistics, units, resamples, seed)]


def resample(statistics: Sequence[Statistic], units: int, resamples: int, seed: int = SEED) -> list[Resampled]:
    """Several statistics on the same resamples of units."""
    estimates = [float(of(np.ones((1, units)))[0]) if units else float("nan") for of in statistics]
    known = [place for place, estimate in enumerate(estimates) if not np.isnan(estimate)] if units > 1 else []
    found = [Resampled(estimate, np.empty(0), np.empty(0), units) for estimate in estimates]
    for place, drawn in zip(known, _replicates([statistics[p] for p in known], units, resamples, seed), strict=True):
        left_out = leave_one_out(statistics[place], units)
        found[place] = Resampled(estimates[place], drawn[~np.isnan(drawn)], left_out, units)
    return found


def _replicates(statistics: Sequence[Statistic], units: int, resamples: int, seed: int) -> Values:
    """(statistics, resamples)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    out = np.empty((len(statistics), resamples))
    step = resamples_per_pass(units)
    for start in range(0, resamples, step):
        weights = _multiplicities(rng, min(step, resamples - start), units)
        for row, of in enumerate(statistics):
            out[row, start : start + step] = of(weights)
    return out


def resamples_per_pass(units: int) -> int:
    """Resamples of so many units that are held at once."""
    return min(_ROWS, max(1, _CHUNK // max(1, units)))


def _multiplicities(rng: np.random.Generator, resamples: int, units: int) -> Values:
    """(resamples, units): how often each unit was drawn in `units` draws."""
    drawn = rng.integers(0, units, (resamples, units)) + units * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


def leave_one_out(of: Statistic, units: int) -> Values:
    """(units,): the statistic without each unit in turn."""
    return _in_turn(of, units, 1.0, 0.0)


def each_alone(of: Statistic, units: int) -> Values:
    """(units,): the statistic of each unit alone."""
    return _in_turn(of, units, 0.0, 1.0)


def _in_turn(of: Statistic, units: int, others: float, own: float) -> Values:
    step = resamples_per_pass(units)
    parts = []
    for start in range(0, units, step):
        weights = np.full((min(step, units - start), units), others)
        weights[np.arange(len(weights)), start + np.arange(len(weights))] = own
        parts.append(of(weights))
    return np.concatenate([np.empty(0), *parts])


def _acceleration(apart: Values) -> float:
    """Skewness, over 6, of jackknife differences; 0 where they are all alike."""
    spread = float((apart**2).sum())
    return float((apart**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

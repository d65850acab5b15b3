"""How sure a score is, and a difference of two: bootstrap intervals, permutation tests, detectable differences.

A resample draws as many units as there are, with replacement; all that a score needs of it is how often each unit was drawn.
So 10,000 resamples are a few products of a matrix of multiplicities with the tallies of the units. Pixels of an image, and
images of a patient or a video, are not independent: resampling them one by one would give intervals that are far too narrow
(Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007). So units are groups of images where groups are known.

Intervals are bias-corrected and accelerated, BCa: Efron, "Better bootstrap confidence intervals", JASA 82, 1987.
Tests exchange two models unit by unit: if they were alike, it would not matter which of them gave which answer (Pitman,
"Significance tests which may be applied to samples from any populations", Supplement to the JRSS 4, 1937; Good,
"Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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

_EQUAL = 1e-10
"""Exchanges that leave two models as far apart as they are differ by rounding."""

POWER = 0.8
"""The chance with which a detectable difference is found."""

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


@dataclass(frozen=True)
class Summed:
    """A statistic that sees only sums over units: `of` maps (..., k) sums to (...) scores, NaN where one does not exist.

    columns: (units, k), what each unit adds. Called with multiplicities, (resamples, units), it is a `Statistic`.
    """

    columns: Values
    of: Callable[[Values], Values]

    def __call__(self, weights: Values) -> Values:
        """Multiplicities (resamples, units) -> scores (resamples,)."""
        return self.of(weights @ self.columns)


def statistic(metric: Metric, tally: Tallies, units: npt.NDArray[np.int64]) -> Summed:
    """A metric as a function of how often each unit was drawn.

    tally: (images, 3, n_classes). units: (images,), from `resampling_units`.
    """
    if metric.level == "image":
        return mean_statistic(metric.of(tally), units)
    shape = tally.shape[1:]
    columns = _sum_by_unit(tally.reshape(len(tally), shape[0] * shape[1]), units)
    return Summed(columns, lambda sums: metric.of(sums.reshape(*sums.shape[:-1], *shape)))


def mean_statistic(values: Values, units: npt.NDArray[np.int64]) -> Summed:
    """The mean over images of any score, (images,), such as a surface distance; images where it is NaN are left out."""
    there = ~np.isnan(values)
    columns = _sum_by_unit(np.stack([np.where(there, values, 0.0), there], axis=1), units)

    def mean(sums: Values) -> Values:
        total, count = sums[..., 0], sums[..., 1]
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    return Summed(columns, mean)


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


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images. difference: of the first less the second. p_value: of a difference as large as this
    between models that are alike. detectable: the smallest true difference that `detectable_difference` vouches for."""

    difference: Interval
    p_value: float
    detectable: float

    @property
    def shown(self) -> bool:
        """Whether the test finds a difference at the interval's level. It is exact where intervals of few images, or of images of
        very different sizes, are somewhat too narrow."""
        return self.p_value <= 1 - self.difference.confidence

    @property
    def verdict(self) -> Literal["better", "worse", "cannot tell"]:
        """What interval and test say of the first model where they agree."""
        if not self.shown:
            return "cannot tell"
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "cannot tell"


def compare(
    metric: Metric,
    tally: Tallies,
    other: Tallies,
    groups: Sequence[str | None],
    resamples: int,
    confidence: float,
    seed: int = SEED,
) -> Comparison:
    """Compare two models on the same images in the same order (paired): the interval of score - other score, a test of it, and what
    these images could have told apart.
    """
    units = resampling_units(groups)
    n = int(units.max(initial=-1)) + 1
    ours, theirs = statistic(metric, tally, units), statistic(metric, other, units)

    def apart(weights: Values) -> Values:
        return ours(weights) - theirs(weights)

    return Comparison(
        bootstrap(apart, n, resamples, confidence, seed),
        permutation_test(ours, theirs, resamples, seed),
        detectable_difference(apart, n, confidence),
    )


def bootstrap(of: Statistic, units: int, resamples: int, confidence: float, seed: int = SEED) -> Interval:
    """The BCa interval of a statistic over `units` units.

    Resamples on which the statistic does not exist are left out. Where BCa is not defined (all resamples on one side of the
    estimate), the percentile interval stands in.
    """
    return bootstrap_all([of], units, resamples, confidence, seed)[0]


def bootstrap_all(
    statistics: Sequence[Statistic], units: int, resamples: int, confidence: float, seed: int = SEED
) -> list[Interval]:
    """The intervals of several statistics over the same units, as `bootstrap` gives them, from the same resamples: drawing
    them takes longer than most scores."""
    estimates = [float(of(np.ones((1, units)))[0]) if units else float("nan") for of in statistics]
    nothing = [Interval(estimate, float("nan"), float("nan"), confidence, units) for estimate in estimates]
    if units < 2:
        return nothing
    known = [place for place, estimate in enumerate(estimates) if not np.isnan(estimate)]
    replicates = _replicates([statistics[place] for place in known], units, resamples, seed)
    levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    found = nothing
    for place, drawn in zip(known, replicates, strict=True):
        there = drawn[~np.isnan(drawn)]
        low, high = np.quantile(there, _bca_levels(statistics[place], units, estimates[place], there, levels))
        found[place] = Interval(estimates[place], float(low), float(high), confidence, units)
    return found


def _replicates(statistics: Sequence[Statistic], units: int, resamples: int, seed: int) -> Values:
    """(statistics, resamples)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    out = np.empty((len(statistics), resamples))
    step = _rows(units)
    for start in range(0, resamples, step):
        weights = _multiplicities(rng, min(step, resamples - start), units)
        for row, of in enumerate(statistics):
            out[row, start : start + step] = of(weights)
    return out


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


def permutation_test(ours: Summed, theirs: Summed, resamples: int, seed: int = SEED) -> float:
    """Two-sided p value: how often models whose answers are exchanged unit by unit are as far apart as these are.

    Of the mean of image scores it is the sign-flip test. All exchanges are tried where there are no more than `resamples`,
    else as many at random, these models themselves counted among them (Phipson and Smyth, 2010), so that p is never 0. An
    exchange after which a score does not exist counts as far apart. NaN where a score of the two does not exist, or no unit.
    """
    units = len(ours.columns)
    first, second = ours.columns.sum(0), theirs.columns.sum(0)
    observed = abs(float(ours.of(first) - theirs.of(second))) if units else float("nan")
    if np.isnan(observed):
        return float("nan")
    step = theirs.columns - ours.columns
    exact = 2.0**units <= resamples
    total = 2**units if exact else resamples
    rng = np.random.Generator(np.random.PCG64(seed))
    beyond = 0
    for start in range(0, total, _rows(units)):
        rows = min(_rows(units), total - start)
        every = np.arange(start, start + rows)[:, None] >> np.arange(units) & 1 if exact else None
        swapped = rng.integers(0, 2, (rows, units), np.uint8) if every is None else every
        moved = swapped.astype(np.float64) @ step
        apart = np.abs(ours.of(first + moved) - theirs.of(second - moved))
        beyond += int(np.count_nonzero(~(apart < observed * (1 - _EQUAL))))
    return beyond / total if exact else (beyond + 1) / (total + 1)


def detectable_difference(of: Statistic, units: int, confidence: float, power: float = POWER) -> float:
    """The smallest true difference that a comparison like this one finds with a chance of `power`.

    of: the difference of two models. From its jackknife standard error (paired: images that are hard for both don't count)
    and Student's t: Bloom, "Minimum detectable effects", Evaluation Review 19, 1995. NaN with fewer than two units.
    """
    from scipy.special import stdtrit

    left_out = _leave_one_out(of, units) if units > 1 else np.empty(0)
    known = left_out[~np.isnan(left_out)]
    if known.size < 2:
        return float("nan")
    error = np.sqrt((known.size - 1) * known.var())
    return float(error * sum(stdtrit(known.size - 1, level) for level in ((1 + confidence) / 2, power)))


def holm(p_values: Values) -> Values:
    """P values of many tests, (n,), such that at `adjusted <= a` not one of them is wrong with a chance of more than a.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979. NaN is no test.
    """
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    out = np.full(len(p_values), np.nan)
    scaled = p_values[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return out

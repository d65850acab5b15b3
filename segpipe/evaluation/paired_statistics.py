"""Two models on the same images: the interval of their difference, a test of it, and what these images could have told apart.

Tests exchange two models unit by unit: if they were alike, it would not matter which of them gave which answer (Pitman,
"Significance tests which may be applied to samples from any populations", Supplement to the JRSS 4, 1937; Good,
"Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segpipe.evaluation.statistics import SEED, Exchangeable, Interval, resample, resamples_per_pass
from segpipe.metrics import Values

_EQUAL = 1e-10
"""Exchanges that leave two models as far apart as they are differ by rounding."""

POWER = 0.8
"""The chance with which a detectable difference is found."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images. difference: of the first less the second. p_value: of a difference as large as this
    between models that are alike. detectable: the smallest true difference that `detectable_difference` vouches for. cautious: as
    `difference`, for those who rely on its bound alone: that a model is not worse, no test confirms."""

    difference: Interval
    p_value: float
    detectable: float
    cautious: Interval

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
    ours: Exchangeable, theirs: Exchangeable, resamples: int, confidence: float, seed: int = SEED
) -> Comparison:
    """Compare two models by the same score over the same units in the same order (paired): the interval of the first less the
    second, a test of it, and what these units could have told apart."""

    def apart(weights: Values) -> Values:
        return ours(weights) - theirs(weights)

    found = resample([apart], ours.size, resamples, seed)[0]
    return Comparison(
        found.interval(confidence),
        permutation_test(ours, theirs, resamples, seed),
        detectable_difference(found.left_out, confidence),
        found.interval(confidence, cautious=True),
    )


def permutation_test(ours: Exchangeable, theirs: Exchangeable, resamples: int, seed: int = SEED) -> float:
    """Two-sided p value: how often models whose answers are exchanged unit by unit are as far apart as these are.

    Of the mean of image scores it is the sign-flip test. All exchanges are tried where there are no more than `resamples`,
    else as many at random, these models themselves counted among them (Phipson and Smyth, 2010), so that p is never 0. An
    exchange after which a score does not exist counts as far apart. NaN where a score of the two does not exist, or no unit.
    """
    units = ours.size
    everything = np.ones((1, units))
    observed = abs(float((ours(everything) - theirs(everything))[0])) if units else float("nan")
    if np.isnan(observed):
        return float("nan")
    exact = 2.0**units <= resamples
    total = 2**units if exact else resamples
    rng = np.random.Generator(np.random.PCG64(seed))
    beyond = 0
    for start in range(0, total, resamples_per_pass(units)):
        rows = min(resamples_per_pass(units), total - start)
        every = np.arange(start, start + rows)[:, None] >> np.arange(units) & 1 if exact else None
        swapped = rng.integers(0, 2, (rows, units), np.uint8) if every is None else every
        first, second = ours.exchanged(theirs, swapped.astype(np.float64))
        apart = np.abs(first - second)
        beyond += int(np.count_nonzero(~(apart < observed * (1 - _EQUAL))))
    return beyond / total if exact else (beyond + 1) / (total + 1)


def detectable_difference(left_out: Values, confidence: float, power: float = POWER) -> float:
    """The smallest true difference that a comparison like this one finds with a chance of `power`.

    left_out: (units,), the difference of two models without each unit in turn. From its jackknife standard error (paired: images
    that are hard for both don't count) and Student's t: Bloom, "Minimum detectable effects", Evaluation Review 19, 1995. NaN with
    fewer than two units.
    """
    from scipy.special import stdtrit

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

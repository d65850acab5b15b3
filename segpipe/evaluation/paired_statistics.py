"""Two models on the same images: the interval of their difference, a test of it, and the smallest difference it can detect.

Tests exchange the scores of two models unit by unit: if the models were equally good, it would not matter which of them produced
which (Pitman, "Significance tests which may be applied to samples from any populations", Supplement to the JRSS 4, 1937; Good,
"Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segpipe.evaluation.statistics import (
    SEED,
    Exchangeable,
    Interval,
    resample,
    resamples_per_pass,
)
from segpipe.metrics import Values

_RELATIVE_TOLERANCE = 1e-10
"""Differences after an exchange that are equal to the observed one up to rounding count as equal."""

POWER = 0.8
"""The probability with which a detectable difference is found."""


@dataclass(frozen=True)
class Comparison:
    """Two models compared on the same images.

    Attributes:
        difference: the score of the first model minus that of the second.
        p_value: the probability of a difference as large as this one between models that are equally good.
        detectable: the smallest true difference that such a comparison finds (`detectable_difference`).
        conservative: as `difference`, with the conservative interval. Conclusions that rest on its bound alone use it: no test
            confirms that a model is not worse.
    """

    difference: Interval
    p_value: float
    detectable: float
    conservative: Interval

    @property
    def significant(self) -> bool:
        """True if the test finds a difference at the level of the interval.

        The test is exact; intervals of few images, or of images of very different sizes, are somewhat too narrow.
        """
        return self.p_value <= 1 - self.difference.confidence

    @property
    def verdict(self) -> Literal["better", "worse", "cannot tell"]:
        """The conclusion about the first model, if interval and test agree on one."""
        if not self.significant:
            return "cannot tell"
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "cannot tell"


def compare(
    ours: Exchangeable, theirs: Exchangeable, resamples: int, confidence: float, seed: int = SEED
) -> Comparison:
    """Compare two models by the same score over the same units (paired).

    Args:
        ours: the score of the first model.
        theirs: the score of the second model, over the same units in the same order.
        resamples: the number of resamples, and of exchanges in the test.
        confidence: of the two-sided intervals, such as 0.95.
        seed: the seed of the random draws.
    """

    def difference(weights: Values) -> Values:
        return ours(weights) - theirs(weights)

    resampled = resample([difference], ours.size, resamples, seed)[0]
    return Comparison(
        resampled.interval(confidence),
        permutation_test(ours, theirs, resamples, seed),
        detectable_difference(resampled.left_out, confidence),
        resampled.interval(confidence, conservative=True),
    )


def permutation_test(ours: Exchangeable, theirs: Exchangeable, resamples: int, seed: int = SEED) -> float:
    """Compute the two-sided p-value: how often models whose scores are exchanged unit by unit differ as much as these.

    For a mean of image scores it is the sign-flip test. All exchanges are tried if there are at most `resamples`, else as many
    random ones, and the observed models are counted among them (Phipson and Smyth, 2010), so that p is never 0. An exchange after
    which a score does not exist counts as an extreme one.

    Args:
        ours: the score of the first model.
        theirs: the score of the second model, over the same units in the same order.
        resamples: the largest number of exchanges.
        seed: the seed of the random draws.

    Returns:
        The p-value; NaN if one of the scores does not exist, or if there is no unit.
    """
    units = ours.size
    everything = np.ones((1, units))
    observed = abs(float((ours(everything) - theirs(everything))[0])) if units else float("nan")
    if np.isnan(observed):
        return float("nan")
    exact = 2.0**units <= resamples
    total = 2**units if exact else resamples
    rng = np.random.Generator(np.random.PCG64(seed))
    extreme = 0
    for start in range(0, total, resamples_per_pass(units)):
        rows = min(resamples_per_pass(units), total - start)
        enumerated = np.arange(start, start + rows)[:, None] >> np.arange(units) & 1 if exact else None
        swapped = rng.integers(0, 2, (rows, units), np.uint8) if enumerated is None else enumerated
        first, second = ours.exchanged(theirs, swapped.astype(np.float64))
        difference = np.abs(first - second)
        extreme += int(np.count_nonzero(~(difference < observed * (1 - _RELATIVE_TOLERANCE))))
    return extreme / total if exact else (extreme + 1) / (total + 1)


def detectable_difference(left_out: Values, confidence: float, power: float = POWER) -> float:
    """Compute the smallest true difference that a comparison like this one finds with the probability `power`.

    It follows from the jackknife standard error (paired: images that are hard for both models do not count) and Student's t: Bloom,
    "Minimum detectable effects", Evaluation Review 19, 1995.

    Args:
        left_out: (units,), the difference of two models without each unit in turn.
        confidence: of the two-sided test, such as 0.95.
        power: the probability with which the difference is found.

    Returns:
        The difference; NaN with fewer than two units.
    """
    from scipy.special import stdtrit

    known = left_out[~np.isnan(left_out)]
    if known.size < 2:
        return float("nan")
    error = np.sqrt((known.size - 1) * known.var())
    return float(error * sum(stdtrit(known.size - 1, level) for level in ((1 + confidence) / 2, power)))


def holm(p_values: Values) -> Values:
    """Correct the p-values of many tests by Holm's method.

    Rejecting all hypotheses with a corrected value of at most a makes even one false rejection with a probability of at most a.
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.

    Args:
        p_values: (n,); NaN is not a test.

    Returns:
        (n,), the corrected values; NaN stays NaN.
    """
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    out = np.full(len(p_values), np.nan)
    scaled = p_values[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return out

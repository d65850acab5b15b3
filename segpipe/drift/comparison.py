"""Comparison of current images with those that the model in production was trained on, quantity by quantity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.config import ValidateParams
from segpipe.drift.reference import Reference

Values = npt.NDArray[np.float64]

BINS = 10
"""Quantile bins of the population stability index."""

_MIN_SHARE = 1e-4
"""Smaller shares of a bin count as this one, so that an empty bin does not make the index infinite."""


class DriftSummary(BaseModel):
    """The change of one quantity from the reference to the current images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    quantity: str
    psi: float
    """Population stability index over the quantile bins of the reference."""
    ks: float
    """Two-sample Kolmogorov-Smirnov distance, 0..1."""
    p_value: float
    """The p-value of the two-sided Kolmogorov-Smirnov test of this quantity, without a correction for the number of quantities."""
    drifted: bool
    before: float
    """Median of the reference."""
    now: float
    """Median of the current images."""


class Drift(DriftSummary):
    """The change of one quantity, with its histogram in both collections."""

    edges: list[float]
    """The limits of the bins, from the smallest to the largest value of both collections."""
    shares_before: list[float]
    """Share of the reference's images in each bin."""
    shares_now: list[float]
    """Share of the current images in each bin."""

    @property
    def summary(self) -> DriftSummary:
        """The change without the histogram."""
        return DriftSummary.model_validate(self.model_dump(include=set(DriftSummary.model_fields)))


def compare(current: Reference, reference: Reference, params: ValidateParams) -> list[Drift]:
    """Compare two collections of images, quantity by quantity.

    A quantity has drifted if its stability index or its distance reaches the threshold and the test rules out chance: in small
    collections both are large by chance alone (the index is about ``(bins - 1) (1/n + 1/m)`` for n and m images from the same
    distribution).

    Args:
        current: the numbers of the current images.
        reference: the numbers of the images that the model in production was trained on.
        params: the thresholds, `drift_psi`, `drift_ks` and `drift_p_value`.

    Returns:
        Each quantity that both have, drifted ones first, then by decreasing stability index.
    """
    names = [name for name in reference.values if name in current.values]
    drifts = [
        _compare_quantity(name, reference.values[name], current.values[name], params, len(names)) for name in names
    ]
    return sorted(drifts, key=lambda drift: (not drift.drifted, -drift.psi))


def _compare_quantity(
    name: str, reference_values: list[float], current_values: list[float], params: ValidateParams, tests: int
) -> Drift:
    from scipy.stats import ks_2samp  # loads for a second, which importers of this module should not wait for

    before, now = np.array(reference_values), np.array(current_values)
    inner = quantile_edges(before)
    shares_before, shares_now = bin_shares(before, inner), bin_shares(now, inner)
    psi = stability_index(shares_before, shares_now)
    test = ks_2samp(before, now)
    large = psi >= params.drift_psi or test.statistic >= params.drift_ks
    return Drift(
        quantity=name,
        psi=psi,
        ks=float(test.statistic),
        p_value=float(test.pvalue),
        drifted=bool(large and test.pvalue * tests < params.drift_p_value),
        before=float(np.median(before)),
        now=float(np.median(now)),
        edges=[min(before.min(), now.min()), *inner.tolist(), max(before.max(), now.max())],
        shares_before=shares_before.tolist(),
        shares_now=shares_now.tolist(),
    )


def quantile_edges(values: Values, bins: int = BINS) -> Values:
    """Return the limits between `bins` bins that hold equally many values each.

    There are fewer limits if values repeat (as a class share of 0 does). A value on a limit belongs to the bin below it. If the last
    limit is the largest value, the bin above it is empty and later collects what exceeds all of these values.
    """
    return np.unique(np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf"))


def bin_shares(values: Values, edges: Values) -> Values:
    """Return the share of the values in each of the ``len(edges) + 1`` bins; the first and the last bin have no outer limit."""
    bin_of_value = np.searchsorted(edges, values, side="left")
    return np.bincount(bin_of_value, minlength=len(edges) + 1) / len(values)


def stability_index(before: Values, now: Values) -> float:
    """Compute the population stability index: the sum over bins of (now - before) ln(now / before), with shares of at least 0.0001.

    It is the symmetrised Kullback-Leibler divergence (Jeffreys) of the two histograms; 0 for equal ones.
    """
    p, q = np.maximum(before, _MIN_SHARE), np.maximum(now, _MIN_SHARE)
    return float(np.sum((q - p) * np.log(q / p)))

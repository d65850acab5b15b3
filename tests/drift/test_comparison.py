"""The comparison of two references: the stability index against a hand computation, distances and p-values against scipy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segpipe.config import ValidateParams
from segpipe.drift.comparison import Drift, DriftSummary, bin_shares, compare, quantile_edges, stability_index
from segpipe.drift.reference import Reference

PARAMS = ValidateParams()


def reference(**values: list[float]) -> Reference:
    return Reference(dtype="uint8", images=len(next(iter(values.values()))), values=values)


def test_the_index_by_hand() -> None:
    before, now = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.25, 0.5])
    by_hand = -0.25 * math.log(0.5) - 0.05 * math.log(25 / 30) + 0.3 * math.log(2.5)
    assert stability_index(before, now) == pytest.approx(by_hand)
    assert stability_index(before, before) == 0
    assert stability_index(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(2 * 0.9999 * math.log(1e4))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=10), st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_the_index_is_the_sum_of_both_relative_entropies(some: list[float], others: list[float]) -> None:
    p, q = np.array(some) + 0.01, np.array(others[: len(some)]) + 0.01
    p, q = p / p.sum(), q / q.sum()
    assert stability_index(p, q) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-9)
    assert stability_index(p, q) == pytest.approx(stability_index(q, p))


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 7.5]), min_size=1, max_size=60))
def test_bins_hold_all_values_and_a_limit_belongs_to_the_bin_below(values: list[float]) -> None:
    array = np.array(values)
    edges = quantile_edges(array)
    shares = bin_shares(array, edges)
    assert shares.sum() == pytest.approx(1)
    assert len(shares) == len(edges) + 1 <= 10
    by_hand = [np.mean(array <= edges[0])]
    by_hand += [np.mean((array > low) & (array <= high)) for low, high in pairwise(edges)]
    by_hand += [np.mean(array > edges[-1])]
    assert shares.tolist() == pytest.approx(by_hand)


def test_quantile_bins_hold_equally_many() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    assert bin_shares(values, quantile_edges(values)).tolist() == pytest.approx([0.1] * 10)


def test_distance_and_p_value_are_scipys_and_a_shift_is_drift() -> None:
    rng = np.random.default_rng(1)
    before, now = rng.normal(0, 1, 200), rng.normal(2, 1, 150)
    (drift,) = compare(reference(mean=now.tolist()), reference(mean=before.tolist()), PARAMS)
    expected = stats.ks_2samp(before, now)
    assert (drift.ks, drift.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    grid = np.concatenate([before, now])
    by_hand = max(abs((before <= x).mean() - (now <= x).mean()) for x in grid)
    assert drift.ks == pytest.approx(by_hand)
    assert drift.drifted
    assert drift.psi > 1
    assert len(drift.edges) == 11
    assert drift.edges[0] == min(before.min(), now.min())


@pytest.mark.parametrize("count", [12, 40, 400])
def test_chance_alone_is_not_drift(count: int) -> None:
    """Small collections have a large index by chance; the significance test prevents false alarms."""
    rng = np.random.default_rng(count)
    alarms, large = 0, 0
    for _ in range(60):
        old, new = (reference(a=rng.normal(size=count).tolist(), b=rng.random(count).tolist()) for _ in range(2))
        drifts = compare(new, old, PARAMS)
        alarms += sum(d.drifted for d in drifts)
        large += sum(d.psi >= PARAMS.drift_psi for d in drifts)
    assert alarms == 0
    assert (large > 60) == (count < 100)


def test_a_tiny_shift_of_many_images_is_significant_and_not_drift() -> None:
    rng = np.random.default_rng(5)
    old, new = reference(a=rng.normal(0, 1, 5000).tolist()), reference(a=rng.normal(0.15, 1, 5000).tolist())
    (drift,) = compare(new, old, PARAMS)
    assert drift.p_value < 1e-4
    assert not drift.drifted


def test_the_summary_leaves_out_the_histogram() -> None:
    (drift,) = compare(reference(a=[1.0, 2.0]), reference(a=[1.0, 3.0]), PARAMS)
    assert isinstance(drift, Drift) and type(drift.summary) is DriftSummary
    assert drift.summary.model_dump() == drift.model_dump(exclude={"edges", "shares_before", "shares_now"})

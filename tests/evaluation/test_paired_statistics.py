"""Tests of differences, corrections and detectable differences; and, by simulation, the coverage of intervals.

Every simulation has a fixed seed and a bound that a correct procedure violates with a probability of less than 1 in 1,000.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segpipe.evaluation.paired_statistics import detectable_difference, holm, permutation_test
from segpipe.evaluation.statistics import (
    SumStatistic,
    bootstrap,
    bootstrap_all,
    leave_one_out,
    mean_statistic,
    resample,
    statistic,
)
from segpipe.metrics import metric, tallies
from tests.worlds.judged_scores import on_images, paired
from tests.worlds.property_tests import examples

NAMES = ["background", "cell", "nucleus"]
MAIN = metric("iou.dataset.macro", NAMES)
PER_IMAGE = metric("dice.image.macro", NAMES)


def within(count: int, times: int, rate: float) -> bool:
    """Return whether `count` of `times` is within the central 99.9 % of outcomes for a probability of `rate`."""
    low, high = stats.binom.interval(0.999, times, rate)
    return bool(low <= count <= high)


def images(rng: np.random.Generator, n: int, skill: float | np.ndarray = 0.8, size: int = 400) -> np.ndarray:
    """Return tallies of n images whose pixels are right with a probability around `skill`; errors are spread over other classes."""
    share = rng.dirichlet([6, 3, 2], n)
    level = np.clip(skill + rng.normal(0, 0.08, n), 0.05, 0.99)
    right = np.eye(3) * level[:, None, None] + (1 - np.eye(3)) * ((1 - level) / 2)[:, None, None]
    return tallies(rng.poisson(size * share[:, :, None] * right))


def means(values: np.ndarray) -> SumStatistic:
    return mean_statistic(values, np.arange(len(values)))


@examples(40)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_the_exact_permutation_test_tries_every_exchange(units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = images(rng, units), images(rng, units, 0.7)
    for chosen in (MAIN, PER_IMAGE):
        pair = [statistic(chosen, t, np.arange(units)) for t in (ours, theirs)]
        observed = abs(chosen.value(ours) - chosen.value(theirs))
        extreme = 0
        for swap in itertools.product([False, True], repeat=units):
            s = np.array(swap)[:, None, None]
            a, b = np.where(s, theirs, ours), np.where(s, ours, theirs)
            extreme += abs(chosen.value(a) - chosen.value(b)) >= observed - 1e-12
        assert permutation_test(*pair, resamples=200) == pytest.approx(extreme / 2**units)


@pytest.mark.parametrize("n", [10, 60])
def test_the_permutation_test_of_means_is_scipys_sign_flip(n: int) -> None:
    rng = np.random.default_rng(n)
    ours = rng.normal(0.05, 0.1, n)
    theirs = np.zeros(n)
    p_value = permutation_test(means(ours), means(theirs), 20_000)
    theirs_p = stats.permutation_test(
        (ours, theirs),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert p_value == pytest.approx(theirs_p, abs=0.01)
    assert p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, abs=0.03)


def test_equal_models_have_a_p_value_of_1_and_missing_scores_have_none() -> None:
    tally = images(np.random.default_rng(0), 30)
    ours = statistic(MAIN, tally, np.arange(30))
    assert permutation_test(ours, ours, 500) == 1
    assert np.isnan(permutation_test(means(np.full(9, np.nan)), means(np.ones(9)), 500))
    assert np.isnan(permutation_test(means(np.empty(0)), means(np.empty(0)), 500))
    smallest = permutation_test(means(np.full(40, 0.5)), means(np.zeros(40)), 999)
    assert smallest == pytest.approx(1 / 1000), "never 0"


def test_groups_are_exchanged_as_a_whole() -> None:
    """The images of each of twelve patients agree: if they were exchanged one by one, chance would look like evidence."""
    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(12), 10)
    shift = rng.normal(0, 0.1, 12)[units] + 0.04
    whole = permutation_test(mean_statistic(shift, units), mean_statistic(np.zeros(120), units), 5000)
    single = permutation_test(means(shift), means(np.zeros(120)), 5000)
    by_patient = permutation_test(means(shift[::10]), means(np.zeros(12)), 5000)
    assert whole == pytest.approx(by_patient) and single < whole / 3


P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.01, 0.02, 0.04])), max_size=8)


@examples(150)
@given(P_VALUES)
def test_the_correction_against_its_definition(p: list[float]) -> None:
    """A hypothesis is rejected at a level exactly if its adjusted p-value is at most that level."""
    adjusted = holm(np.array(p))
    n = len(p)
    order = sorted(range(n), key=lambda i: p[i])
    for level in (0.013, 0.0501, 0.231, 0.77):
        rejected = set()
        for rank, i in enumerate(order):  # stop at the first that is not rejected
            if p[i] > level / (n - rank):
                break
            rejected.add(i)
        assert {i for i in range(n) if adjusted[i] <= level} == rejected


def test_nan_does_not_count_among_the_tests() -> None:
    p = np.array([0.01, np.nan, 0.04])
    np.testing.assert_allclose(holm(p), [0.02, np.nan, 0.04])


def test_the_detectable_difference_of_means_in_closed_form() -> None:
    values = np.random.default_rng(3).normal(0.1, 0.2, 25)
    error = values.std(ddof=1) / 5
    expected = error * (stats.t.ppf(0.975, 24) + stats.t.ppf(0.8, 24))
    left_out = leave_one_out(means(values), 25)
    assert detectable_difference(left_out, 0.95) == pytest.approx(expected)
    assert detectable_difference(left_out, 0.95, power=0.95) > 1.2 * expected
    assert np.isnan(detectable_difference(left_out[:1], 0.95))


def test_intervals_that_share_resamples_are_the_same_as_single_ones() -> None:
    tally = images(np.random.default_rng(4), 20)
    tally[:, :, 2] = 0
    names = ["iou.dataset.macro", "iou.class.nucleus", "dice.image.macro"]
    scores = [statistic(metric(name, NAMES), tally, np.arange(20)) for name in names]
    together = bootstrap_all(scores, 20, 500, 0.9)
    for one, alone in zip(together, (bootstrap(s, 20, 500, 0.9) for s in scores), strict=True):
        np.testing.assert_equal(vars(one), vars(alone))
    assert np.isnan(together[1].low) and not np.isnan(together[2].low)


def test_the_verdict_of_a_comparison() -> None:
    rng = np.random.default_rng(5)
    ours = images(rng, 60, 0.85)
    worse = ours.copy()
    worse[:, 0] -= ours[:, 0] // 8
    result = paired(MAIN, ours, worse, [None] * 60, 2000, 0.95)
    assert result.verdict == "better" and result.p_value < 0.01 and result.detectable < result.difference.estimate
    reverse = paired(MAIN, worse, ours, [None] * 60, 2000, 0.95)
    assert reverse.verdict == "worse" and reverse.p_value == pytest.approx(result.p_value)
    few = paired(MAIN, images(rng, 6), images(rng, 6), [None] * 6, 2000, 0.95)
    assert few.verdict == "cannot tell" and few.detectable > abs(few.difference.estimate)


def test_intervals_of_a_score_have_their_nominal_coverage() -> None:
    """Macro IoU over datasets of 60 images; the truth is its value over 40,000."""
    rng = np.random.default_rng(6)
    truth = MAIN.value(images(rng, 40_000))
    times, covered = 600, 0
    for seed in range(times):
        interval = on_images(MAIN, images(rng, 60), [None] * 60, 500, 0.9, seed)
        covered += interval.low <= truth <= interval.high
    assert within(covered, times, 0.9), covered


def test_intervals_over_groups_have_their_coverage_and_intervals_over_images_do_not() -> None:
    """30 patients with 5 similar images each: only intervals over patients have their nominal coverage."""
    rng = np.random.default_rng(7)
    truth = MAIN.value(images(rng, 40_000, np.clip(rng.normal(0.75, 0.1, 40_000), 0.05, 0.99)))
    groups = [f"patient {i // 5}" for i in range(150)]
    times, by_group, by_image = 250, 0, 0
    for seed in range(times):
        tally = images(rng, 150, np.repeat(np.clip(rng.normal(0.75, 0.1, 30), 0.05, 0.99), 5))
        for names, honest in ((groups, True), ([None] * 150, False)):
            interval = on_images(MAIN, tally, names, 500, 0.9, seed)
            covered = interval.low <= truth <= interval.high
            by_group, by_image = by_group + (covered and honest), by_image + (covered and not honest)
    assert within(by_group, times, 0.88), by_group  # thirty units: a little less than 0.9
    assert not within(by_image, times, 0.9), by_image


def pair_of_models(rng: np.random.Generator, n: int, gap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the tallies of two models that find the same images hard."""
    hard = np.clip(rng.normal(0.75, 0.1, n), 0.05, 0.95)
    return images(rng, n, hard + gap), images(rng, n, hard)


def test_equal_models_are_distinguished_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(8)
    times, by_interval, by_test, by_both = 250, 0, 0, 0
    for seed in range(times):
        result = paired(MAIN, *pair_of_models(rng, 40), [None] * 40, 400, 0.9, seed)
        by_interval += result.difference.low > 0 or result.difference.high < 0
        by_test += result.p_value <= 0.1
        by_both += result.verdict != "cannot tell"
    assert within(by_interval, times, 0.11), by_interval  # forty images: intervals are a little narrow
    assert within(by_test, times, 0.1), by_test
    assert by_both <= min(by_interval, by_test)


def test_the_detectable_difference_is_found_with_its_power() -> None:
    """With a known spread of image scores, a true difference of that size is found in eight of ten cases."""
    rng = np.random.default_rng(9)
    n, spread, times = 40, 0.1, 400
    planted = spread / np.sqrt(n) * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    sizes, detected = [], 0
    for seed in range(times):
        values = rng.normal(planted, spread, n)
        sizes.append(detectable_difference(leave_one_out(means(values), n), 0.95))
        detected += permutation_test(means(values), means(np.zeros(n)), 300, seed) <= 0.05
    assert np.mean(sizes) == pytest.approx(planted, rel=0.06)
    assert within(detected, times, 0.79), detected


def uneven_models(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """Return the tallies of two models that are equal on average and differ on each of many images of very different sizes."""
    size = 4000 * rng.lognormal(0, 1.2, n)
    share = rng.dirichlet([6, 1.5, 0.6], n)
    hard, differences = np.clip(rng.normal(0.8, 0.1, n), 0.3, 0.97), rng.normal(0, 0.08, n)
    models = []
    for skill in (np.clip(hard + differences / 2, 0.02, 0.995), np.clip(hard - differences / 2, 0.02, 0.995)):
        right = np.eye(3) * skill[:, None, None] + (1 - np.eye(3)) * ((1 - skill) / 2)[:, None, None]
        models.append(tallies(rng.poisson(size[:, None, None] * share[:, :, None] * right)))
    return models


@pytest.mark.parametrize("n", [12, 24, 47])
def test_conservative_bounds_have_their_coverage_on_uneven_images_and_plain_ones_do_not(n: int) -> None:
    """Counts how often the truth, which is the value over 200,000 images, lies beyond either bound of an interval."""
    rng = np.random.default_rng(10)
    ours, theirs = uneven_models(rng, 200_000)
    truth = MAIN.value(ours) - MAIN.value(theirs)
    times, missed = 300, {"plain": 0, "conservative": 0}
    for seed in range(times):
        result = paired(MAIN, *uneven_models(rng, n), [None] * n, 250, 0.95, seed)
        for name, interval in (("plain", result.difference), ("conservative", result.conservative)):
            missed[name] += (interval.low > truth) + (interval.high < truth)
    most = stats.binom.ppf(0.999, 2 * times, 0.025)
    assert missed["conservative"] <= most < missed["plain"], missed


def test_a_conservative_interval_of_a_mean_has_the_width_of_students_t() -> None:
    values = np.random.default_rng(11).normal(size=30)
    resampled = resample([means(values)], 30, 20_000)[0]
    plain, conservative = resampled.interval(0.95), resampled.interval(0.95, conservative=True)
    differences = values - values.mean()
    freedom = (differences**2).sum() ** 2 / (differences**4).sum()
    half = stats.t.ppf(0.975, freedom) * values.std(ddof=1) / np.sqrt(30)
    assert conservative.high - conservative.low == pytest.approx(2 * half, rel=0.08)
    assert conservative.low < plain.low < plain.high < conservative.high and conservative.estimate == plain.estimate


def test_bounds_are_in_order_if_one_unit_decides() -> None:
    """A single outlier gives the fewest degrees of freedom and the largest skewness."""
    for values in (np.append(np.zeros(9), 1.0), np.append(np.ones(9), 0.0)):
        interval = resample([means(values)], 10, 500)[0].interval(0.95, conservative=True)
        assert interval.low <= interval.estimate <= interval.high
        assert interval.low == 0 or interval.high == 1, "the smallest or largest resample"

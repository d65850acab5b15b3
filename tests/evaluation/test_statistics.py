"""Intervals against closed forms, against scipy's bootstrap, and their coverage in simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from segpipe.evaluation.statistics import Statistic, bootstrap, resampling_units, statistic
from segpipe.metrics import Values, metric, tallies
from tests.worlds.judged_scores import on_images, paired

NAMES = ["background", "cell", "nucleus"]


def mean_of(values: np.ndarray) -> Statistic:
    return lambda weights: (weights @ values) / weights.sum(1)


def random_tallies(rng: np.random.Generator, images: int, skill: float = 0.8) -> np.ndarray:
    confusions = rng.integers(0, 60, (images, 3, 3))
    confusions[:, range(3), range(3)] += rng.integers(0, int(400 * skill), (images, 3))
    return tallies(confusions)


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal"])
def test_bca_agrees_with_scipy(draw: str) -> None:
    """For skewed samples BCa and the plain percentile differ, and ours must be the BCa."""
    values = getattr(np.random.default_rng(1), draw)(size=40)
    ours = bootstrap(mean_of(values), len(values), 20_000, 0.95)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)
    plain = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2))
    if draw != "normal":
        assert abs(plain.confidence_interval.high - ours.high) > 0.03 * width


def test_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(3).normal(size=400)
    interval = bootstrap(mean_of(values), 400, 20_000, 0.9)
    half = stats.norm.ppf(0.95) * values.std() / np.sqrt(400)
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_the_interval_has_about_its_nominal_coverage() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(300):
        interval = bootstrap(mean_of(rng.exponential(size=50)), 50, 1000, 0.9, seed)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.85 <= covered / 300 <= 0.95


def test_resampled_scores_are_those_of_the_resampled_images() -> None:
    """The matrix product is compared with scores of images that are really repeated."""
    rng = np.random.default_rng(5)
    tally = random_tallies(rng, 7)
    tally[3] = 0  # an image without a counted pixel
    for name in ("iou.dataset.macro", "dice.image.macro", "accuracy.pixel", "iou.class.cell", "recall.image.micro"):
        chosen = metric(name, NAMES)
        score = statistic(chosen, tally, np.arange(7))
        drawn = rng.integers(0, 7, (20, 7))
        weights = np.stack([np.bincount(d, minlength=7) for d in drawn]).astype(float)
        np.testing.assert_allclose(score(weights), [chosen.value(tally[d]) for d in drawn])


def test_groups_are_drawn_as_a_whole() -> None:
    rng = np.random.default_rng(6)
    groups = [f"patient {i // 10}" for i in range(120)]
    ids = np.arange(120) // 10
    skill = rng.uniform(0.2, 1.0, 12)[ids]
    tally = np.stack([random_tallies(rng, 1, s)[0] for s in skill])
    chosen = metric("iou.dataset.macro", NAMES)
    np.testing.assert_array_equal(resampling_units(groups), ids)
    whole = statistic(chosen, tally, ids)
    chosen_groups = rng.integers(0, 12, 12)
    weights = np.bincount(chosen_groups, minlength=12).astype(float)[None]
    expected = chosen.value(np.concatenate([tally[ids == g] for g in chosen_groups]))
    np.testing.assert_allclose(whole(weights), [expected])
    by_group = on_images(chosen, tally, groups, 2000, 0.95)
    by_image = on_images(chosen, tally, [None] * 120, 2000, 0.95)
    assert by_group.units == 12 and by_image.units == 120
    assert by_group.high - by_group.low > by_image.high - by_image.low, "images of one patient are similar"


def test_too_few_groups_fall_back_to_images() -> None:
    np.testing.assert_array_equal(resampling_units(["a", "b", "a", "b"]), range(4))
    many = [*"abcdef", None, None, "a"]
    np.testing.assert_array_equal(resampling_units(many), [0, 1, 2, 3, 4, 5, 6, 7, 0])


def test_a_paired_difference_has_a_narrower_interval_than_each_model() -> None:
    rng = np.random.default_rng(7)
    one = random_tallies(rng, 60)
    other = one.copy()
    other[:, 0] -= np.minimum(5, other[:, 0])  # a few hits fewer in every image
    chosen = metric("iou.dataset.macro", NAMES)
    difference = paired(chosen, one, other, [None] * 60, 2000, 0.95).difference
    alone = on_images(chosen, one, [None] * 60, 2000, 0.95)
    assert difference.estimate == pytest.approx(chosen.value(one) - chosen.value(other))
    assert 0 < difference.low < difference.estimate < difference.high
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)


def test_a_model_does_not_differ_from_itself() -> None:
    tally = random_tallies(np.random.default_rng(8), 30)
    difference = paired(metric("iou.dataset.macro", NAMES), tally, tally, [None] * 30, 500, 0.95).difference
    assert (difference.estimate, difference.low, difference.high) == (0, 0, 0)


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images_have_no_interval(images: int) -> None:
    interval = on_images(
        metric("iou.dataset.macro", NAMES), random_tallies(np.random.default_rng(0), images), [None] * images, 500, 0.95
    )
    assert np.isnan(interval.low) and np.isnan(interval.high)
    assert np.isnan(interval.estimate) == (images == 0)


def test_a_score_that_does_not_exist_has_no_interval() -> None:
    tally = random_tallies(np.random.default_rng(0), 10)
    tally[:, :, 1] = 0
    interval = on_images(metric("iou.class.cell", NAMES), tally, [None] * 10, 500, 0.95)
    assert np.isnan([interval.estimate, interval.low, interval.high]).all()


def test_a_class_in_a_single_image_still_has_an_interval() -> None:
    """Resamples without the class are left out, and nothing is NaN."""
    tally = random_tallies(np.random.default_rng(9), 10)
    tally[1:, :, 2] = 0
    interval = on_images(metric("iou.class.nucleus", NAMES), tally, [None] * 10, 500, 0.95)
    assert interval.low == pytest.approx(interval.estimate) and interval.high == pytest.approx(interval.estimate)


def test_the_same_run_gives_the_same_interval() -> None:
    tally = random_tallies(np.random.default_rng(10), 20)
    chosen = metric("dice.dataset.macro", NAMES)
    assert on_images(chosen, tally, [None] * 20, 500, 0.95) == on_images(chosen, tally, [None] * 20, 500, 0.95)
    assert on_images(chosen, tally, [None] * 20, 500, 0.95) != on_images(chosen, tally, [None] * 20, 500, 0.95, seed=1)


def test_passes_over_resamples_are_bounded_and_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(11).normal(size=30)
    widest = 0

    def watched(weights: Values) -> Values:
        nonlocal widest
        widest = max(widest, weights.size)
        return mean_of(values)(weights)

    expected = bootstrap(mean_of(values), 30, 500, 0.95)
    monkeypatch.setattr("segpipe.evaluation.statistics._MAX_MULTIPLICITIES", 90)
    assert bootstrap(watched, 30, 500, 0.95) == expected
    assert widest <= 90

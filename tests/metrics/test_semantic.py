"""Scores against scikit-learn, scipy, segmentation-models-pytorch and plain sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.errors import ConfigError
from segpipe.labels import OverlappingLabelling
from segpipe.metrics import (
    MAIN_METRIC,
    RATIOS,
    accuracy_macro,
    confusion,
    macro,
    matthews,
    metric,
    metric_names,
    micro,
    per_class,
    scores,
    tallies,
    weighted,
)
from segpipe.samples import IGNORE
from tests.worlds.property_tests import examples

K = 4
NAMES = ["sky", "road", "car", "sign.post"]
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def masks(shape: tuple[int, int], ids: list[int]) -> st.SearchStrategy[np.ndarray]:
    """Draw random masks, and masks with one value, which are the edge cases of averages."""
    anything = hnp.arrays(np.uint8, shape, elements=st.sampled_from(ids))
    return st.one_of(anything, st.sampled_from(ids).map(lambda i: np.full(shape, i, np.uint8)))


PAIRS = SHAPES.flatmap(lambda s: st.tuples(masks(s, [*range(K), IGNORE]), masks(s, list(range(K)))))

ADVERSARIAL = {
    "empty truth": (np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)),
    "empty prediction": (np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)),
    "both full": (np.full((4, 4), 2, np.uint8), np.full((4, 4), 2, np.uint8)),
    "one pixel right": (np.eye(1, 16, 5, dtype=np.uint8).reshape(4, 4), np.eye(1, 16, 5, dtype=np.uint8).reshape(4, 4)),
    "one pixel missed": (
        np.eye(1, 16, 5, dtype=np.uint8).reshape(4, 4),
        np.eye(1, 16, 6, dtype=np.uint8).reshape(4, 4),
    ),
    "disjoint": (np.repeat([[1, 2]], 4, 0).astype(np.uint8), np.repeat([[2, 1]], 4, 0).astype(np.uint8)),
    "ignored everywhere": (np.full((4, 4), IGNORE, np.uint8), np.ones((4, 4), np.uint8)),
    "ignored but for one": (np.where(np.eye(1, 16) > 0, 3, IGNORE).astype(np.uint8), np.full((1, 16), 3, np.uint8)),
}


def by_sets(truth: np.ndarray, prediction: np.ndarray, ratio: str) -> list[float]:
    """Compute the ratio of each class from two sets of pixels; NaN if both are empty."""
    counted = {tuple(p) for p in np.argwhere(truth != IGNORE)}
    values = []
    for k in range(K):
        true = {p for p in counted if truth[p] == k}
        predicted = {p for p in counted if prediction[p] == k}
        top, bottom = {
            "iou": (len(true & predicted), len(true | predicted)),
            "dice": (2 * len(true & predicted), len(true) + len(predicted)),
            "precision": (len(true & predicted), len(predicted)),
            "recall": (len(true & predicted), len(true)),
        }[ratio]
        values.append(float("nan") if not true | predicted else top / bottom if bottom else 0.0)
    return values


def by_sklearn(truth: np.ndarray, prediction: np.ndarray, ratio: str, average: str) -> float:
    from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

    function = {"iou": jaccard_score, "dice": f1_score, "precision": precision_score, "recall": recall_score}[ratio]
    counted = truth != IGNORE
    return float(function(truth[counted], prediction[counted], average=average, zero_division=0))


def check_against_all(truth: np.ndarray, prediction: np.ndarray) -> None:
    tally = tallies(confusion(truth, prediction, K))
    for ratio in RATIOS:
        np.testing.assert_allclose(per_class(ratio, tally), by_sets(truth, prediction, ratio))
        if (truth != IGNORE).any():  # like segpipe, scikit-learn averages over the labels in truth or prediction
            np.testing.assert_allclose(macro(ratio, tally), by_sklearn(truth, prediction, ratio, "macro"))
            np.testing.assert_allclose(micro(ratio, tally), by_sklearn(truth, prediction, ratio, "micro"))
        else:
            assert np.isnan(macro(ratio, tally)) and np.isnan(micro(ratio, tally))


@pytest.mark.parametrize("case", ADVERSARIAL)
def test_adversarial_masks(case: str) -> None:
    check_against_all(*ADVERSARIAL[case])


@examples(80)
@given(PAIRS)
def test_random_masks(pair: tuple[np.ndarray, np.ndarray]) -> None:
    check_against_all(*pair)


@examples(80)
@given(PAIRS)
def test_confusion_counts_every_pixel_once(pair: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import confusion_matrix

    truth, prediction = pair
    counted = truth != IGNORE
    expected = (
        confusion_matrix(truth[counted], prediction[counted], labels=range(K)) if counted.any() else np.zeros((K, K))
    )
    np.testing.assert_array_equal(confusion(truth, prediction, K), expected)


@examples(80)
@given(PAIRS)
def test_each_class_against_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Compared with the Jaccard and Dice dissimilarity of two vectors of booleans."""
    from scipy.spatial.distance import dice, jaccard

    truth, prediction = pair
    counted = truth != IGNORE
    tally = tallies(confusion(truth, prediction, K))
    for k in range(K):
        true, predicted = truth[counted] == k, prediction[counted] == k
        if (true | predicted).any():
            assert per_class("iou", tally)[k] == pytest.approx(1 - jaccard(true, predicted))
            assert per_class("dice", tally)[k] == pytest.approx(1 - dice(true, predicted))


@pytest.mark.slow  # the import takes several seconds
@examples(40)
@given(PAIRS)
def test_random_masks_against_segmentation_models_pytorch(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Its macro averages are over all classes, so they are compared only if all classes are present."""
    import segmentation_models_pytorch as smp
    import torch

    truth, prediction = pair
    tally = tallies(confusion(truth, prediction, K))
    assume(not np.isnan(per_class("iou", tally)).any())
    counted = truth != IGNORE  # its own `ignore_index` counts what is predicted on ignored pixels as false positives
    predicted, true = (torch.from_numpy(m[counted].astype(np.int64))[None] for m in (prediction, truth))
    stats = smp.metrics.get_stats(predicted, true, mode="multiclass", num_classes=K)
    for ratio, theirs in {"iou": smp.metrics.iou_score, "dice": smp.metrics.f1_score}.items():
        np.testing.assert_allclose(macro(ratio, tally), float(theirs(*stats, reduction="macro")), rtol=1e-5)
        np.testing.assert_allclose(micro(ratio, tally), float(theirs(*stats, reduction="micro")), rtol=1e-5)


def test_names_say_what_is_averaged() -> None:
    """For two images of different size each average is a different number, computed by hand."""
    a = confusion(np.array([[0, 0, 0, 1]], np.uint8), np.array([[0, 0, 1, 1]], np.uint8), K)  # iou 2/3, 1/2
    b = confusion(np.array([[2]], np.uint8), np.array([[2]], np.uint8), K)  # iou 1
    values = scores(tallies(np.stack([a, b])), NAMES)
    assert values["iou.dataset.macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert values["iou.dataset.micro"] == pytest.approx(4 / 6)
    assert values["iou.image.macro"] == pytest.approx(((2 / 3 + 1 / 2) / 2 + 1) / 2)
    assert values["iou.image.micro"] == pytest.approx((3 / 5 + 1) / 2)
    assert values["accuracy.pixel"] == pytest.approx(4 / 5)
    assert values["iou.class.road"] == pytest.approx(1 / 2)
    assert values["dice.class.car"] == 1
    assert values["iou.class.sign.post"] is None, "a class that is in neither has no score"
    assert values["iou.dataset.weighted"] == pytest.approx(3 / 5 * 2 / 3 + 1 / 5 * 1 / 2 + 1 / 5 * 1)
    assert values["iou.image.weighted"] == pytest.approx((3 / 4 * 2 / 3 + 1 / 4 * 1 / 2 + 1) / 2)
    assert values["iou.image.class.road"] == pytest.approx(1 / 2), "the image without a road is left out"
    assert values["iou.image.class_empty1.road"] == pytest.approx((1 / 2 + 1) / 2), (
        "or counts as 1, if the name says so"
    )
    assert values["iou.image.macro_empty1"] == pytest.approx(((2 / 3 + 1 / 2 + 1 + 1) / 4 + 1) / 2)
    assert values["accuracy.dataset.macro"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert values["accuracy.image.macro"] == pytest.approx(((2 / 3 + 1) / 2 + 1) / 2)
    assert values["mcc.class.car"] == pytest.approx(1)
    assert set(values) == set(metric_names(NAMES))


def test_scores_have_no_nan() -> None:
    nothing = tallies(np.zeros((3, K, K), np.int64))
    values = scores(nothing, NAMES)
    assert set(values.values()) == {None}
    json.dumps(values, allow_nan=False)


def test_an_image_without_a_counted_pixel_is_left_out_of_the_mean() -> None:
    perfect = confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), K)
    nothing = confusion(np.full((2, 2), IGNORE, np.uint8), np.ones((2, 2), np.uint8), K)
    assert metric("iou.image.macro", NAMES).value(tallies(np.stack([perfect, nothing]))) == 1


def test_an_ignored_image_is_not_rewarded_for_missing_classes() -> None:
    nothing = tallies(np.zeros((1, K, K), np.int64))
    for name in ("iou.image.macro_empty1", "dice.image.class_empty1.car"):
        assert np.isnan(metric(name, NAMES).value(nothing))


def test_a_class_that_is_only_predicted_lowers_macro_scores_but_not_class_accuracy() -> None:
    tally = tallies(confusion(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8), K))
    assert macro("recall", tally) == pytest.approx((3 / 4 + 0) / 2)
    assert accuracy_macro(tally) == weighted("iou", tally) == 3 / 4


def test_matthews_of_single_classes() -> None:
    zeros, ones, both = np.zeros((1, 4), np.uint8), np.ones((1, 4), np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    values = [
        matthews(tallies(confusion(*pair, K))) for pair in ((ones, ones), (ones, zeros), (both, ones), (ones, both))
    ]
    np.testing.assert_equal(values, [np.nan, 0, 0, 0])
    assert matthews(tallies(confusion(both, 1 - both, K))) == pytest.approx(-1)


@examples(60)
@given(PAIRS)
def test_matthews_of_a_class_is_that_of_two_classes(pair: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import matthews_corrcoef

    truth, prediction = pair
    counted = truth != IGNORE
    tally = tallies(confusion(truth, prediction, K))
    for k, name in enumerate(NAMES):
        value = metric(f"mcc.class.{name}", NAMES).value(tally[None])
        y, p = truth[counted] == k, prediction[counted] == k
        if len(set(y) | set(p)) > 1:
            assert value == pytest.approx(matthews_corrcoef(y, p))
        else:
            assert np.isnan(value)


def test_matthews_of_large_masks_keeps_its_digits() -> None:
    """Scaling all counts changes nothing, even if their squares exceed 64-bit integers."""
    counts = np.array([[7, 1, 0], [2, 9, 1], [0, 1, 5]])
    assert matthews(tallies(counts * 10**10)) == pytest.approx(float(matthews(tallies(counts))), rel=1e-12)


LABELS = SHAPES.flatmap(lambda s: st.tuples(*[hnp.arrays(np.bool_, (3, *s))] * 2, hnp.arrays(np.bool_, s)))


@examples(80)
@given(LABELS)
def test_classes_that_overlap_against_scikit_learn(masks: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Compared in its multi-label form, with one row per pixel and one column per class; the background is where no other class is."""
    from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

    true, predicted, counted = masks
    true, predicted = (np.concatenate([~m.any(0, keepdims=True), m]) for m in (true, predicted))
    labelling = OverlappingLabelling(4)
    truth, prediction = labelling.pack(true), labelling.pack(predicted)
    truth[~counted] = IGNORE
    tally = tallies(confusion(truth, prediction, labelling.n_labels), labelling)
    y, p = true[:, counted].T, predicted[:, counted].T
    functions = {"iou": jaccard_score, "dice": f1_score, "precision": precision_score, "recall": recall_score}
    for ratio, theirs in functions.items():
        if len(y):
            known = ~np.isnan(per_class(ratio, tally))
            np.testing.assert_array_equal(known, (y | p).any(0))
            by_class = theirs(y, p, average=None, zero_division=0)
            np.testing.assert_allclose(per_class(ratio, tally)[known], by_class[known])
            np.testing.assert_allclose(micro(ratio, tally), theirs(y, p, average="micro", zero_division=0))
        else:
            assert np.isnan(macro(ratio, tally))


@examples(60)
@given(SHAPES.flatmap(lambda s: st.tuples(masks(s, [0, 1, 2, 3, IGNORE]), masks(s, [0, 1, 2, 3]))))
def test_exclusive_classes_have_the_same_scores_as_sets(pair: tuple[np.ndarray, np.ndarray]) -> None:
    as_set = np.arange(256, dtype=np.uint8)
    as_set[:4] = [0, 1, 2, 4]
    plain = tallies(confusion(*pair, 4))
    sets = OverlappingLabelling(4)
    as_sets = tallies(confusion(*(as_set[mask] for mask in pair), sets.n_labels), sets)
    np.testing.assert_array_equal(as_sets, plain)


def test_invalid_class_ids_are_named_in_the_error() -> None:
    ok = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"\[254\]"):
        confusion(np.full((2, 2), 254, np.uint8), ok, K)
    with pytest.raises(ValueError, match=r"\[7\]"):
        confusion(ok, np.full((2, 2), 7, np.uint8), K)
    with pytest.raises(ValueError, match="shape"):
        confusion(ok, np.zeros((2, 3), np.uint8), K)
    with pytest.raises(ValueError, match="uint8"):
        confusion(ok.astype(np.int64), ok, K)


def test_large_masks_are_counted_in_blocks() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, K, (2, 700, 900)).astype(np.uint8)
    expected = np.zeros((K, K), np.int64)
    np.add.at(expected, (truth, prediction), 1)
    np.testing.assert_array_equal(confusion(truth, prediction, K), expected)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("iou.dataset.marco", "iou.dataset.macro"),
        ("iou.class.rode", "iou.class.road"),
        ("miou.dataset.macro", MAIN_METRIC),
    ],
)
def test_an_unknown_metric_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean `{near}`"):
        metric(wrong, NAMES)

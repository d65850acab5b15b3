"""Average precision of resampled images, compared with that of images that are really repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.metrics.detections import (
    COCO_THRESHOLDS,
    Detections,
    PooledDetections,
    average_precision,
    match_detections,
)
from segpipe.metrics.instances import InstanceMasks
from tests.metrics.coco_oracle import CocoCounter
from tests.metrics.oracles import PlainInstance, pixels_of, plain_ap
from tests.metrics.test_instances import CLASSES, plain, random_instances
from tests.worlds.property_tests import examples

ALL_THRESHOLDS = tuple(range(10))
Image = tuple[InstanceMasks, InstanceMasks, np.ndarray]


def images_of(seed: int, count: int, overlap: bool, ties: bool = False) -> list[Image]:
    """Return truth, prediction and ignored pixels of each image; every second image has no ignored pixels."""
    rng = np.random.default_rng(seed)
    shape = (12, 14)
    pairs = [random_instances(rng, shape, 6, overlap) for _ in range(count)]
    if not ties:
        pairs = [(truth, replace(predicted, scores=rng.random(len(predicted)))) for truth, predicted in pairs]
    return [(t, p, (rng.random(shape) < 0.4) & (i % 2 == 0)) for i, (t, p) in enumerate(pairs)]


def by_coco(images: list[Image]) -> tuple[float, float, float]:
    counter = CocoCounter(CLASSES)
    for image in images:
        counter.add(*image)
    result = counter.result()
    return result.ap, result.ap50, result.ap75


def pools_of(images: list[Image]) -> list[PooledDetections]:
    true = np.array([np.bincount(t.classes, minlength=CLASSES) for t, _, _ in images])
    pool = PooledDetections.from_images([match_detections(*image) for image in images], true)
    return [pool.of_class(k) for k in range(CLASSES)]


def ours(pools: list[PooledDetections], weights: np.ndarray) -> list[tuple[float, float, float]]:
    columns = [average_precision(pools, weights, thresholds) for thresholds in (ALL_THRESHOLDS, (0,), (5,))]
    return [tuple(float(v) for v in row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("overlap", [True, False])
@examples(15)
@given(seed=st.integers(0, 10**6))
def test_resampled_precision_is_that_of_repeated_images(overlap: bool, seed: int) -> None:
    images = images_of(seed, 5, overlap)
    drawn = np.random.default_rng(seed).integers(0, 5, (4, 5))
    weights = np.stack([np.ones(5), *(np.bincount(row, minlength=5) for row in drawn)]).astype(float)
    expected = [by_coco(images), *(by_coco([images[i] for i in sorted(row)]) for row in drawn)]
    np.testing.assert_allclose(ours(pools_of(images), weights), expected, atol=1e-12)
    # Ties are compared for images that are drawn once: COCO orders the copies of tied detections differently.
    tied = images_of(seed, 5, overlap, ties=True)
    np.testing.assert_allclose(ours(pools_of(tied), weights[:1]), [by_coco(tied)], atol=1e-12)


@examples(10)
@given(seed=st.integers(0, 10**6))
def test_precision_against_sets_of_pixels(seed: int) -> None:
    images = images_of(seed, 4, overlap=True, ties=True)
    sides = []
    for truth, prediction, ignored in images:
        crowd = [PlainInstance(pixels_of(ignored), k, crowd=True) for k in range(CLASSES) if ignored.any()]
        sides.append((plain(truth) + crowd, plain(prediction)))
    expected = np.array([[plain_ap(sides, k, t)[0] for t in COCO_THRESHOLDS] for k in range(CLASSES)])
    known = ~np.isnan(expected[:, 0])
    means = [np.nan] * 3
    if known.any():
        means = [expected[known].mean(), expected[known, 0].mean(), expected[known, 5].mean()]
    np.testing.assert_allclose(ours(pools_of(images), np.ones((1, 4)))[0], means)


def test_two_pools_are_merged_into_one_order() -> None:
    """Each resample draws from the images of both models."""
    first, second = images_of(1, 4, False), images_of(2, 4, False)
    merged = [a.merged(b) for a, b in zip(pools_of(first), pools_of(second), strict=True)]
    weights = np.array([[1, 0, 1, 0, 0, 1, 0, 1], [0, 2, 0, 0, 1, 0, 1, 0]], float)
    expected = [
        by_coco([first[0], first[2], second[1], second[3]]),
        by_coco([first[1], first[1], second[0], second[2]]),
    ]
    np.testing.assert_allclose(ours(merged, weights), expected, atol=1e-12)


def test_passes_over_resamples_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = pools_of(images_of(3, 6, False))
    weights = np.random.default_rng(0).multinomial(6, [1 / 6] * 6, 50).astype(float)
    whole = average_precision(pools, weights, ALL_THRESHOLDS)
    monkeypatch.setattr("segpipe.metrics.detections._MAX_VALUES", 20)
    np.testing.assert_array_equal(average_precision(pools, weights, ALL_THRESHOLDS), whole)


def test_precision_does_not_exist_without_true_instances_and_is_0_without_predictions() -> None:
    nothing = InstanceMasks.from_map(np.zeros((4, 4), np.uint16))
    one = InstanceMasks.from_map(np.ones((4, 4), np.uint16))
    for truth, prediction, expected in ((nothing, nothing, np.nan), (nothing, one, np.nan), (one, nothing, 0.0)):
        pool = PooledDetections.from_images([match_detections(truth, prediction)], np.array([[len(truth)]]))
        np.testing.assert_equal(average_precision([pool.of_class(0)], np.ones((1, 1)), ALL_THRESHOLDS), [expected])


def test_packed_detections_are_restored() -> None:
    for image in images_of(4, 6, False):
        detections = match_detections(*image)
        restored = Detections.unpacked(detections.scores.tolist(), detections.packed().tolist())
        assert restored is not None
        for name in ("scores", "classes", "hits", "ignored"):
            np.testing.assert_array_equal(getattr(restored, name), getattr(detections, name))
    assert Detections.unpacked(None, []) is None

"""Surface scores by hand, by properties, and against brute force on small masks; libraries: test_against_oracles.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.metrics import per_class
from segpipe.metrics.surface import (
    boundary_tallies,
    contour,
    contour_width,
    surface_distances,
    surface_scores,
)
from segpipe.samples import IGNORE
from tests.metrics.oracles import plain_contour, plain_distances
from tests.worlds.property_tests import examples

SHAPES = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
)
MASKS = SHAPES.flatmap(lambda s: st.tuples(hnp.arrays(np.bool_, s), hnp.arrays(np.bool_, s)))
SPACINGS = st.sampled_from([None, (1.0, 1.0, 1.0), (0.5, 2.0, 3.0), (5.0, 0.7, 0.7)])


def square(size: int, low: int, high: int) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[low:high, low:high] = True
    return mask


@examples(150)
@given(MASKS, SPACINGS)
def test_distances_against_every_pair(pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, ...] | None) -> None:
    truth, prediction = pair
    step = spacing[: truth.ndim] if spacing else None
    distances = surface_distances(truth, prediction, step)
    if truth.any() and prediction.any():
        ours = np.sort(distances.of_prediction), np.sort(distances.of_truth)
        size = step or (1.0,) * truth.ndim
        np.testing.assert_allclose(ours[0], np.sort(plain_distances(prediction, truth, size)))
        np.testing.assert_allclose(ours[1], np.sort(plain_distances(truth, prediction, size)))
        assert distances.hausdorff() <= distances.hausdorff(100) <= distances.worst
        reverse = surface_distances(prediction, truth, step)
        assert (distances.hausdorff(), distances.average(), distances.dice(1)) == pytest.approx(
            (reverse.hausdorff(), reverse.average(), reverse.dice(1))
        )


def test_a_moved_square_by_hand() -> None:
    truth, prediction = square(12, 2, 7), np.roll(square(12, 2, 7), 1, axis=1)
    distances = surface_distances(truth, prediction)
    # Each has 16 surface pixels. After the shift by one column, those of the upper and lower side coincide except at one end.
    assert sorted(distances.of_truth) == sorted(distances.of_prediction) == [0] * 8 + [1] * 8
    assert distances.average() == distances.dice(0.5) == 0.5
    assert distances.hausdorff(100) == distances.dice(1) == 1
    mm = surface_distances(truth, prediction, (1.0, 0.25))
    assert mm.hausdorff(100) == 0.25


def test_a_missed_instance_is_never_better_than_another_prediction() -> None:
    rng = np.random.default_rng(0)
    truth = square(10, 3, 6)
    missed = surface_distances(truth, np.zeros_like(truth), (2.0, 3.0))
    assert missed.hausdorff() == missed.average() == pytest.approx(np.hypot(20, 30))
    assert missed.dice(1e9) == 0
    corner = np.zeros_like(truth)
    corner[-1, -1] = True
    for prediction in [corner, ~truth, *(rng.random((40, 10, 10)) < 0.05)]:
        if prediction.any():
            distances = surface_distances(truth, prediction, (2.0, 3.0))
            assert distances.hausdorff() < missed.hausdorff() and distances.average() < missed.average()
            assert distances.dice(1) >= missed.dice(1)


def test_two_empty_masks_have_no_score_and_one_empty_mask_has_the_worst() -> None:
    truth = np.zeros((6, 8), np.uint8)
    truth[:3] = 1
    prediction = np.zeros_like(truth)
    prediction[0, 0] = 2
    scores = surface_scores(truth, prediction, 4, tolerance=2.0)
    assert np.isnan(scores[:, 3]).all()
    for missed in (1, 2):  # in the truth only, in the prediction only
        assert scores[:, missed].tolist() == [10, 10, 0]
    assert np.isfinite(scores[:, 0]).all()
    nothing = surface_scores(np.full((4, 4), IGNORE, np.uint8), np.ones((4, 4), np.uint8), 2, 1.0)
    assert np.isnan(nothing).all()


def test_ignored_pixels_are_in_no_mask() -> None:
    truth, prediction = square(9, 2, 6).astype(np.uint8), square(9, 2, 6).astype(np.uint8)
    truth[:, 4:] = IGNORE
    prediction[:, 6:] = 1  # all of these pixels are ignored
    scores = surface_scores(truth, prediction, 2, 1.0)
    assert scores[:, 1].tolist() == [0, 0, 1]
    counts = boundary_tallies(truth, prediction, 2, width=1)
    assert per_class("iou", counts)[1] == 1


@examples(100)
@given(MASKS, st.integers(1, 3))
def test_the_band_against_every_pixel(pair: tuple[np.ndarray, np.ndarray], width: int) -> None:
    np.testing.assert_array_equal(contour(pair[0], width), plain_contour(pair[0], width))


def test_the_band_in_mm_has_the_same_width_along_each_axis() -> None:
    full = np.ones((9, 9), np.bool_)
    band = contour(full, 3.0, (1.0, 2.0))
    assert not band[3:6, 1:8].any() and band[2].all() and band[:, 0].all()
    assert contour(full, 0.1, (1.0, 2.0)).sum() == 32, "surface pixels are always included"
    assert contour_width((300, 400)) == 10 and contour_width((3, 4)) == 1
    assert contour_width((300, 400), (0.5, 0.5)) == 5 and contour_width((3, 4), (2.0, 3.0)) == 2


def test_boundary_iou_detects_a_loss_that_iou_does_not() -> None:
    """For a large square that is one pixel too small on each side, IoU hardly drops but boundary IoU does."""
    truth, prediction = square(200, 20, 180).astype(np.uint8), square(200, 21, 179).astype(np.uint8)
    band = per_class("iou", boundary_tallies(truth, prediction, 2, width=2))[1]
    ring_truth, ring_prediction = 160**2 - 156**2, 158**2 - 154**2
    shared = 158**2 - 156**2
    assert band == pytest.approx(shared / (ring_truth + ring_prediction - shared))
    assert band < 0.4 < 0.97 < 158**2 / 160**2


def test_invalid_inputs_are_refused() -> None:
    mask = np.ones((4, 4), np.bool_)
    with pytest.raises(ValueError, match="shape"):
        surface_distances(mask, np.ones((4, 5), np.bool_))
    with pytest.raises(ValueError, match="bool"):
        surface_distances(mask, mask.astype(np.uint8))
    for spacing in ((1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="spacing"):
            surface_distances(mask, mask, spacing)

"""Volumes in windows and between grids, against closed forms, scipy's zoom and MONAI's sliding window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.errors import DataError
from segpipe.inference.engines.engine import softmax
from segpipe.inference.preprocess import Normalisation, fit_channels
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.volumes import (
    labels_on_grid,
    pad_to_shape,
    predict_windows,
    resample,
    resample_channel,
    resampled_shape,
    spacing_ratios,
    window_weights,
    windows,
)
from segpipe.samples import ClassTable
from tests.worlds.property_tests import examples
from tests.worlds.segmenters import Pixelwise, assert_likeliest

UNIT = Normalisation(low=(0.0,), high=(1.0,), mean=(0.0,), std=(1.0,))
PATCH = (8, 12, 16)


def make(spacing=None, normalisation=UNIT):
    spec = SegmenterSpec(
        candidate="toy",
        family="unet3d",
        classes=ClassTable.from_names(["a", "b", "c"]),
        normalisation=normalisation,
        dims=3,
        patch3d=PATCH,
        spacing=spacing,
    )
    return Segmenter(spec, Pixelwise())


@given(st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40)))
@examples(25)
def test_any_shape_gives_the_prediction_of_each_voxel(shape):
    volume = np.random.default_rng(sum(shape)).random(shape).astype(np.float32)
    segmenter = make()
    prediction = segmenter.predict(volume, probabilities=True)
    scores = np.stack([volume, 1 - volume, np.full_like(volume, 0.6)])
    assert_likeliest(prediction.class_ids, scores)
    np.testing.assert_allclose(prediction.probabilities, softmax(scores), atol=1e-5)
    assert {shape[2:] for shape in segmenter.engine.shapes} == {PATCH}, "all windows have the same shape"


def test_a_volume_of_one_window_is_predicted_at_once():
    volume = np.random.default_rng(0).random((1, *PATCH), np.float32)
    engine = Pixelwise()
    values = predict_windows(volume, engine, 3, PATCH)
    np.testing.assert_array_equal(values, engine(volume[None])[0])
    assert len(engine.shapes) == 2


@given(st.tuples(st.integers(8, 40), st.integers(12, 40), st.integers(16, 60)))
@examples(25)
def test_windows_cover_every_voxel_and_overlap_by_half(shape):
    count = np.zeros(shape, int)
    for window in windows(shape, PATCH):
        assert tuple(s.stop - s.start for s in window) == PATCH
        count[window] += 1
    assert count.min() >= 1
    inner = tuple(slice(p // 2, n - p // 2) for p, n in zip(PATCH, shape, strict=True))
    longer = [i for i, (p, n) in enumerate(zip(PATCH, shape, strict=True)) if n > p]
    if count[inner].size:
        assert count[inner].min() >= 2 ** len(longer)


def test_window_weights_are_largest_at_the_centre_and_never_zero():
    weights = window_weights((9, 11, 13))
    assert weights[4, 5, 6] == weights.max() == 1 and weights.min() > 0
    for axis in range(3):
        np.testing.assert_array_equal(weights, np.flip(weights, axis))
    # A Gaussian with a standard deviation of an eighth of the edge: one voxel from the centre, along the first axis.
    assert weights[5, 5, 6] == pytest.approx(np.exp(-0.5 * (1 / (9 / 8)) ** 2), rel=1e-5)


@pytest.mark.slow  # MONAI takes seconds to load
def test_windows_are_averaged_as_by_monai():
    import torch
    from monai.inferers import sliding_window_inference

    rng = np.random.default_rng(3)
    kernel = torch.from_numpy(rng.standard_normal((2, 1, 3, 3, 3)).astype(np.float32))

    def predict(x):
        return torch.nn.functional.conv3d(torch.as_tensor(x), kernel, padding=1)

    volume = rng.random((1, 16, 24, 24), np.float32)
    values = predict_windows(volume, lambda x: predict(x).numpy(), 2, (8, 8, 8))
    expected = sliding_window_inference(
        torch.from_numpy(volume[None]), (8, 8, 8), 1, predict, overlap=0.5, mode="gaussian", sigma_scale=0.125
    )
    np.testing.assert_allclose(values, expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 7, 9), (5, 20, 3), (24, 30, 28)])
def test_resampling_equals_scipys_zoom_in_grid_mode(shape):
    from scipy.ndimage import zoom

    volume = np.random.default_rng(1).random((10, 14, 9)).astype(np.float32)
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    expected = zoom(volume, factors, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resample_channel(volume, shape), expected, atol=1e-5)


def test_a_ramp_keeps_its_position_in_millimetres():
    """Voxel i of size s is at (i + 1/2) s mm; a linear image must have the same value there on any grid."""
    fine = np.broadcast_to((np.arange(24) + 0.5)[:, None, None], (24, 5, 5)).astype(np.float32)
    coarse = resample_channel(fine, (8, 5, 5))
    np.testing.assert_allclose(coarse[:, 2, 2], (np.arange(8) + 0.5) * 3, rtol=1e-6)
    back = resample_channel(coarse, (24, 5, 5))
    np.testing.assert_allclose(back[2:-2], fine[2:-2], rtol=1e-5)


def test_labels_resampled_by_the_nearest_voxel_stay_labels():
    labels = np.random.default_rng(0).integers(0, 3, (1, 9, 9, 9)).astype(np.uint8) * 100
    resampled = resample(labels, (13, 5, 9), order=0)
    assert resampled.dtype == np.uint8 and set(np.unique(resampled)) <= {0, 100, 200}


def test_voxel_sizes_that_differ_by_rounding_are_equal():
    assert spacing_ratios((1.0, 1.0, 0.9999), (1.0, 1.0, 1.0)).tolist() == [1, 1, 1]
    assert spacing_ratios((1.0, 1.0, 4.0), (1.0, 1.0, 2.0)).tolist() == [1, 1, 0.5]
    assert spacing_ratios(None, (1.0, 1.0, 2.0)).tolist() == [1, 1, 1]
    assert resampled_shape((10, 10, 10), np.array([1, 0.5, 4])) == (10, 20, 2)


def test_padding_is_even_on_both_sides():
    volume = np.random.default_rng(0).random((2, 5, 12, 9), np.float32)
    padded, inside = pad_to_shape(volume, (8, 8, 16))
    assert padded.shape == (2, 8, 12, 16)
    np.testing.assert_array_equal(padded[(slice(None), *inside)], volume)


def test_class_ids_are_derived_after_probabilities_are_resampled():
    probabilities = softmax(np.random.default_rng(5).standard_normal((4, 6, 7, 8)).astype(np.float32))
    ids, resampled = labels_on_grid(probabilities, (9, 7, 16), keep_values=True)
    np.testing.assert_array_equal(ids, np.stack([resample_channel(p, (9, 7, 16)) for p in probabilities]).argmax(0))
    np.testing.assert_allclose(resampled.sum(0), 1, atol=1e-5)
    assert labels_on_grid(probabilities, (9, 7, 16), keep_values=False)[1] is None


def test_a_volume_with_other_voxels_is_predicted_on_its_own_grid():
    """Halves of brightness 0.9 and 0.1, with voxels of 1 mm and of 3 by 0.5 mm: the border is at the same millimetre."""
    segmenter = make(spacing=(1.0, 1.0, 1.0))
    fine = np.full((12, 24, 10), 0.9, np.float32)
    fine[:, 12:] = 0.1
    coarse = np.full((4, 48, 10), 0.9, np.float32)
    coarse[:, 24:] = 0.1
    for volume, spacing in ((fine, (1.0, 1.0, 1.0)), (coarse, (3.0, 0.5, 1.0))):
        ids = segmenter.predict(volume, spacing=spacing).class_ids
        assert ids.shape == volume.shape
        half = volume.shape[1] // 2
        assert (ids[:, : half - 1] == 0).all() and (ids[:, half + 1 :] == 1).all()


def test_each_volume_is_normalised_by_its_own_values():
    per_image = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)
    volume = np.random.default_rng(2).gamma(2.0, size=(12, 14, 16, 1)).astype(np.float32)
    normalised = per_image.apply(volume)
    assert normalised.shape == (1, 12, 14, 16) and normalised.flags.c_contiguous
    low, high = np.percentile(volume, (0.5, 99.5))
    clipped = np.clip(volume, low, high)
    expected = ((volume - clipped.mean()) / clipped.std())[..., 0]
    np.testing.assert_allclose(normalised[0], expected, atol=1e-4)
    np.testing.assert_allclose(per_image.apply(volume * 5000 + 300), normalised, atol=1e-3)
    assert np.isfinite(per_image.apply(np.full((3, 3, 3, 1), 7, np.uint8))).all()
    np.testing.assert_allclose(per_image.for_image(volume).apply(volume[:4]), normalised[:, :4], atol=1e-6)


def test_an_image_is_refused_where_a_volume_is_expected():
    with pytest.raises(DataError, match="depth x height x width"):
        make().predict(np.zeros((8, 8, 3), np.float32)[:, :, 0])
    with pytest.raises(DataError, match="not an image"):
        fit_channels(np.zeros((2, 3, 4, 1)), 1)
    assert fit_channels(np.zeros((2, 3, 4)), 3, dims=3).shape == (2, 3, 4, 3)

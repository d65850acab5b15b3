"""Volumes in windows and between grids, against closed forms, scipy's zoom and MONAI's sliding window."""

import numpy as np
import pytest
from hypothesis import given, settings
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
@settings(max_examples=25, deadline=None)
def test_any_shape_gives_the_answer_of_every_voxel(shape):
    volume = np.random.default_rng(sum(shape)).random(shape).astype(np.float32)
    segmenter = make()
    found = segmenter.predict(volume, probabilities=True)
    scores = np.stack([volume, 1 - volume, np.full_like(volume, 0.6)])
    assert_likeliest(found.class_ids, scores)
    np.testing.assert_allclose(found.probabilities, softmax(scores), atol=1e-5)
    assert {seen[2:] for seen in segmenter.engine.shapes} == {PATCH}, "the network sees windows of one shape alone"


def test_a_volume_of_one_window_is_the_networks_own_answer():
    volume = np.random.default_rng(0).random((1, *PATCH), np.float32)
    engine = Pixelwise()
    found = predict_windows(volume, engine, 3, PATCH)
    np.testing.assert_array_equal(found, engine(volume[None])[0])
    assert len(engine.shapes) == 2


@given(st.tuples(st.integers(8, 40), st.integers(12, 40), st.integers(16, 60)))
@settings(max_examples=25, deadline=None)
def test_windows_cover_every_voxel_and_overlap_by_half(shape):
    seen = np.zeros(shape, int)
    for window in windows(shape, PATCH):
        assert tuple(s.stop - s.start for s in window) == PATCH
        seen[window] += 1
    assert seen.min() >= 1
    inner = tuple(slice(p // 2, n - p // 2) for p, n in zip(PATCH, shape, strict=True))
    longer = [i for i, (p, n) in enumerate(zip(PATCH, shape, strict=True)) if n > p]
    if seen[inner].size:
        assert seen[inner].min() >= 2 ** len(longer)


def test_a_window_weighs_most_in_its_middle_and_nowhere_nothing():
    weights = window_weights((9, 11, 13))
    assert weights[4, 5, 6] == weights.max() == 1 and weights.min() > 0
    for axis in range(3):
        np.testing.assert_array_equal(weights, np.flip(weights, axis))
    # a Gaussian with a deviation of an eighth of the edge: one voxel off the middle, along the first axis
    assert weights[5, 5, 6] == pytest.approx(np.exp(-0.5 * (1 / (9 / 8)) ** 2), rel=1e-5)


@pytest.mark.slow  # MONAI takes seconds to load
def test_windows_are_weighed_as_monai_weighs_them():
    torch = pytest.importorskip("torch")
    from monai.inferers import sliding_window_inference

    rng = np.random.default_rng(3)
    kernel = torch.from_numpy(rng.standard_normal((2, 1, 3, 3, 3)).astype(np.float32))

    def predict(x):
        return torch.nn.functional.conv3d(torch.as_tensor(x), kernel, padding=1)

    volume = rng.random((1, 16, 24, 24), np.float32)
    mine = predict_windows(volume, lambda x: predict(x).numpy(), 2, (8, 8, 8))
    theirs = sliding_window_inference(
        torch.from_numpy(volume[None]), (8, 8, 8), 1, predict, overlap=0.5, mode="gaussian", sigma_scale=0.125
    )
    np.testing.assert_allclose(mine, theirs[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 7, 9), (5, 20, 3), (24, 30, 28)])
def test_resampling_is_what_scipys_zoom_does_between_faces(shape):
    from scipy.ndimage import zoom

    volume = np.random.default_rng(1).random((10, 14, 9)).astype(np.float32)
    factors = [n / have for n, have in zip(shape, volume.shape, strict=True)]
    wanted = zoom(volume, factors, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resample_channel(volume, shape), wanted, atol=1e-5)


def test_a_ramp_keeps_its_place_in_millimetres():
    """Voxel i of edge s lies at (i + 1/2) s mm; a linear image has to have the same value there in any grid."""
    fine = np.broadcast_to((np.arange(24) + 0.5)[:, None, None], (24, 5, 5)).astype(np.float32)
    coarse = resample_channel(fine, (8, 5, 5))
    np.testing.assert_allclose(coarse[:, 2, 2], (np.arange(8) + 0.5) * 3, rtol=1e-6)
    back = resample_channel(coarse, (24, 5, 5))
    np.testing.assert_allclose(back[2:-2], fine[2:-2], rtol=1e-5)


def test_labels_resampled_by_the_nearest_voxel_stay_labels():
    labels = np.random.default_rng(0).integers(0, 3, (1, 9, 9, 9)).astype(np.uint8) * 100
    found = resample(labels, (13, 5, 9), order=0)
    assert found.dtype == np.uint8 and set(np.unique(found)) <= {0, 100, 200}


def test_voxel_sizes_that_differ_by_rounding_are_the_same():
    assert spacing_ratios((1.0, 1.0, 0.9999), (1.0, 1.0, 1.0)).tolist() == [1, 1, 1]
    assert spacing_ratios((1.0, 1.0, 4.0), (1.0, 1.0, 2.0)).tolist() == [1, 1, 0.5]
    assert spacing_ratios(None, (1.0, 1.0, 2.0)).tolist() == [1, 1, 1]
    assert resampled_shape((10, 10, 10), np.array([1, 0.5, 4])) == (10, 20, 2)


def test_a_padded_volume_lies_in_the_middle_of_what_it_is_padded_to():
    volume = np.random.default_rng(0).random((2, 5, 12, 9), np.float32)
    padded, inside = pad_to_shape(volume, (8, 8, 16))
    assert padded.shape == (2, 8, 12, 16)
    np.testing.assert_array_equal(padded[(slice(None), *inside)], volume)


def test_class_ids_are_taken_after_the_probabilities_came_back():
    probabilities = softmax(np.random.default_rng(5).standard_normal((4, 6, 7, 8)).astype(np.float32))
    ids, kept = labels_on_grid(probabilities, (9, 7, 16), keep=True)
    np.testing.assert_array_equal(ids, np.stack([resample_channel(p, (9, 7, 16)) for p in probabilities]).argmax(0))
    np.testing.assert_allclose(kept.sum(0), 1, atol=1e-5)
    assert labels_on_grid(probabilities, (9, 7, 16), keep=False)[1] is None


def test_a_volume_of_other_voxels_is_answered_in_its_own_grid():
    """Two halves of brightness 0.9 and 0.1, at 1 mm and at 3 mm by 0.5 mm: the border lies at the same millimetre."""
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


def test_each_volume_is_scaled_by_its_own_values():
    own = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)
    volume = np.random.default_rng(2).gamma(2.0, size=(12, 14, 16, 1)).astype(np.float32)
    scaled = own.apply(volume)
    assert scaled.shape == (1, 12, 14, 16) and scaled.flags.c_contiguous
    low, high = np.percentile(volume, (0.5, 99.5))
    cut = np.clip(volume, low, high)
    np.testing.assert_allclose(scaled[0], ((volume - cut.mean()) / cut.std())[..., 0], atol=1e-4)
    np.testing.assert_allclose(own.apply(volume * 5000 + 300), scaled, atol=1e-3)
    assert np.isfinite(own.apply(np.full((3, 3, 3, 1), 7, np.uint8))).all()
    np.testing.assert_allclose(own.of(volume).apply(volume[:4]), scaled[:, :4], atol=1e-6)


def test_an_image_is_no_volume():
    with pytest.raises(DataError, match="depth x height x width"):
        make().predict(np.zeros((8, 8, 3), np.float32)[:, :, 0])
    with pytest.raises(DataError, match="not an image"):
        fit_channels(np.zeros((2, 3, 4, 1)), 1)
    assert fit_channels(np.zeros((2, 3, 4)), 3, dims=3).shape == (2, 3, 4, 3)

"""`Segmenter` and its parts, compared with brute force. Engines are toys whose prediction is known for each pixel."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.errors import ConfigError, DataError, MissingError
from segpipe.inference.engines.engine import softmax
from segpipe.inference.outputs import argmax
from segpipe.inference.preprocess import Normalisation, fit_channels, pad_to_multiple
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.tiling import predict_tiled, tile_starts, tile_weights
from segpipe.inference.trained_model import load_trained
from segpipe.samples import ClassTable
from tests.worlds.property_tests import examples
from tests.worlds.segmenters import UNIT, Pixelwise, assert_likeliest


def make(stride=32, tile=64, overlap=16):
    spec = SegmenterSpec(
        candidate="toy",
        family="unet",
        classes=ClassTable.from_names(["a", "b", "c"]),
        normalisation=UNIT,
        stride=stride,
        tile=tile,
        overlap=overlap,
    )
    return Segmenter(spec, Pixelwise())


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 16, 32]))
@examples(30)
def test_any_size_gives_the_prediction_of_each_pixel(height, width, stride):
    """Also if the image is smaller than the stride, smaller than a tile along one axis only, or larger than a tile."""
    image = np.random.default_rng(height * 1000 + width).random((height, width)).astype(np.float32)
    segmenter = make(stride)
    prediction = segmenter.predict(image, probabilities=True)
    scores = np.stack([image, 1 - image, np.full_like(image, 0.6)])
    assert_likeliest(prediction.class_ids, scores)
    np.testing.assert_allclose(prediction.probabilities, softmax(scores), atol=1e-5)
    assert all(h % stride == 0 and w % stride == 0 for _, _, h, w in segmenter.engine.shapes)


def test_memory_is_bounded_by_tiles_not_by_the_image():
    segmenter = make(tile=64)
    segmenter.predict(np.zeros((500, 300), np.float32))
    assert {shape[2:] for shape in segmenter.engine.shapes} == {(64, 64)}


@given(st.integers(1, 400), st.integers(2, 80), st.integers(0, 40))
def test_tiles_cover_an_axis_and_end_with_it(length, tile, overlap):
    overlap = min(overlap, tile - 1)
    positions = tile_starts(length, tile, overlap)
    covered = np.zeros(max(length, tile), bool)
    for start in positions:
        covered[start : start + tile] = True
    assert covered.all() and positions == sorted(set(positions))
    assert positions[-1] + tile == length or length <= tile
    assert all(b - a <= tile - overlap for a, b in pairwise(positions))


def test_overlapping_tiles_are_a_weighted_mean():
    """Compared with an explicit sum, with an engine that predicts other values for each tile."""
    rng = np.random.default_rng(0)
    chw = rng.random((1, 40, 52), np.float32)
    predictions = iter(rng.random((100, 1, 2, 16, 16), np.float32))
    used = []

    def predict(_):
        used.append(next(predictions))
        return used[-1]

    bands = list(predict_tiled(chw, predict, 2, 16, 6))
    values = np.concatenate([band for _, band in bands], 1)
    total, weight = np.zeros((2, 40, 52)), np.zeros((40, 52))
    corners = [(y, x) for y in tile_starts(40, 16, 6) for x in tile_starts(52, 16, 6)]
    for (y, x), prediction in zip(corners, used, strict=True):
        total[:, y : y + 16, x : x + 16] += prediction[0] * tile_weights(16)
        weight[y : y + 16, x : x + 16] += tile_weights(16)
    np.testing.assert_allclose(values, total / weight, rtol=1e-5)
    assert [top for top, _ in bands] == tile_starts(40, 16, 6)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(1, 8)),
        elements=st.floats(-5, 5, width=16),
    )
)
def test_argmax_equals_numpys_with_ties(scores):
    np.testing.assert_array_equal(argmax(scores), scores.argmax(0))


@given(hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-500, 500, width=32)))
def test_softmax_equals_torchs(scores):
    np.testing.assert_allclose(softmax(scores), torch.softmax(torch.from_numpy(scores), 0).numpy(), atol=1e-6)


@given(st.sampled_from(["uint8", "uint16", "float32"]), st.integers(1, 4))
def test_normalisation_follows_its_definition(dtype, channels):
    rng = np.random.default_rng(channels)
    image = (rng.random((6, 7, channels)) * 250).astype(dtype)
    low, high = rng.random(channels) * 10, 20 + rng.random(channels) * 100
    mean, std = rng.random(channels), 0.1 + rng.random(channels)
    normalisation = Normalisation(low=tuple(low), high=tuple(high), mean=tuple(mean), std=tuple(std))
    expected = ((image.astype(float) - low) / (high - low) - mean) / std
    normalised = normalisation.apply(image)
    assert normalised.dtype == np.float32 and normalised.flags.c_contiguous
    np.testing.assert_allclose(normalised, expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-4)


def test_a_normalisation_that_divides_by_zero_is_refused():
    with pytest.raises(ValueError, match="high must be above low"):
        Normalisation(low=(1.0,), high=(1.0,), mean=(0.0,), std=(1.0,))
    with pytest.raises(ValueError, match="one number per channel"):
        Normalisation(low=(1.0, 2.0), high=(3.0,), mean=(0.0,), std=(1.0,))


def test_channels_are_converted_only_if_nothing_is_lost():
    rng = np.random.default_rng(0)
    rgb, grey = rng.random((4, 5, 3)), rng.random((4, 5))
    assert fit_channels(grey, 3).shape == (4, 5, 3)
    np.testing.assert_array_equal(fit_channels(fit_channels(grey, 3), 1)[..., 0], grey)
    np.testing.assert_array_equal(fit_channels(np.dstack([rgb, np.ones((4, 5))]), 3), rgb)
    for image, channels in [(rgb, 1), (rgb, 4), (np.zeros((4, 5, 2)), 3), (np.zeros((0, 5, 3)), 3), (np.zeros(4), 1)]:
        with pytest.raises(DataError):
            fit_channels(image, channels)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 16, 32]), st.sampled_from([0, 64]))
def test_padding_reaches_the_next_multiple(height, width, stride, min_size):
    chw = np.random.default_rng(0).random((2, height, width), np.float32)
    padded = pad_to_multiple(chw, stride, min_size)
    for padded_length, length in zip(padded.shape[1:], (height, width), strict=True):
        needed = max(length, min_size)
        assert padded_length % stride == 0 and needed <= padded_length < needed + stride
    np.testing.assert_array_equal(padded[:, :height, :width], chw)


def test_the_error_of_a_folder_without_a_model_says_what_to_do(tmp_path):
    with pytest.raises(MissingError, match="no model in this folder"):
        load_trained(tmp_path)
    make().spec.write(tmp_path)
    with pytest.raises(MissingError, match="segpipe train toy"):
        load_trained(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"do not fit segmenter\.json"):
        load_trained(tmp_path)

"""Statistics of images, compared with numpy, SciPy, OpenCV and imagehash."""

from __future__ import annotations

from itertools import pairwise

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from segpipe.data.images import statistics
from segpipe.data.images.statistics import histogram, moments, perceptual_hash, reduce_to_grey, sharpness
from tests.worlds.property_tests import examples

RNG = np.random.default_rng(0)


@examples(50)
@given(
    plane=st.one_of(
        arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12))),
        arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12))),
        arrays(
            np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(-1000, 1000, width=32)
        ),
    )
)
def test_moments_of_a_plane(plane: np.ndarray) -> None:
    values = plane.astype(np.float64)
    expected = values.mean(), values.std(), *np.percentile(values, (0.5, 99.5), method="inverted_cdf")
    computed = moments(np.stack([plane[::-1], plane], axis=2))
    np.testing.assert_allclose(computed, np.stack([expected, expected], axis=1), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_histogram_in_bands_is_that_of_the_whole_image(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    plane = RNG.integers(0, np.iinfo(dtype).max, (53, 31), dtype=dtype, endpoint=True)
    monkeypatch.setattr(statistics, "row_bands", lambda image, _: [image[i : i + 3] for i in range(0, len(image), 3)])
    levels = np.iinfo(dtype).max + 1
    np.testing.assert_array_equal(histogram(plane), np.bincount(plane.ravel(), minlength=levels))


def test_hashes_agree_with_imagehash_and_tolerate_small_changes() -> None:
    for blur in (0.5, 1, 2, 4):
        small = cv2.GaussianBlur(RNG.integers(0, 256, (32, 32), dtype=np.uint8), (0, 0), blur)
        assert perceptual_hash(reduce_to_grey(small[:, :, None])) == str(imagehash.phash(Image.fromarray(small)))
    tone = cv2.resize(RNG.normal(size=(9, 12)), (600, 450), interpolation=cv2.INTER_CUBIC)
    image = np.clip(128 + 40 * tone[:, :, None] + RNG.normal(0, 3, (450, 600, 3)), 0, 255).astype(np.uint8)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    half = cv2.resize(image, (301, 226), interpolation=cv2.INTER_AREA)
    compressed = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    first, *near, far = (
        imagehash.hex_to_hash(perceptual_hash(reduce_to_grey(i))) for i in (image, half, compressed, mirrored)
    )
    assert max(first - hashed for hashed in near) <= 6
    assert first - far > 12
    for variant in (image[:, :, :2], image.astype(np.uint16) * 257, image.astype(np.float32), image[None].repeat(3, 0)):
        assert first - imagehash.hex_to_hash(perceptual_hash(reduce_to_grey(variant))) <= 6
    assert len(perceptual_hash(reduce_to_grey(RNG.normal(size=(200, 1, 7)).astype(np.float32)))) == 16


def test_sharpness_falls_with_blur_and_does_not_depend_on_brightness() -> None:
    noise = RNG.integers(0, 200, (80, 90, 3), dtype=np.uint8)
    grey = cv2.cvtColor(noise, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey.astype(float), (0.5, 99.5), method="inverted_cdf")
    edges = ndimage.correlate(grey.astype(float), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]))[1:-1, 1:-1]
    np.testing.assert_allclose(sharpness(noise), edges.var() / (high - low) ** 2)
    np.testing.assert_allclose(sharpness(noise.astype(np.uint16) * 300), sharpness(noise), rtol=0.01)
    np.testing.assert_allclose(sharpness(noise.astype(np.float32) - 7), sharpness(noise), rtol=0.01)
    np.testing.assert_allclose(sharpness(np.stack([noise, noise])), sharpness(noise))
    tiles = cv2.resize(noise[:10, :10], (160, 160), interpolation=cv2.INTER_NEAREST)
    blurred = [sharpness(tiles)] + [sharpness(cv2.GaussianBlur(tiles, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    assert all(sharper > 1.5 * softer for sharper, softer in pairwise(blurred))
    for flat in (np.full((50, 50, 3), 9, np.uint8), noise[:2], noise[:, :2]):
        assert sharpness(flat) == 0
    large = RNG.integers(0, 200, (700, 900, 1), dtype=np.uint8)
    whole = cv2.Laplacian(large, cv2.CV_16S)[1:-1, 1:-1].var() / (198 - 1) ** 2
    np.testing.assert_allclose(sharpness(large), whole, rtol=0.03)

"""Cleaning up class ids: thresholds and small regions."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label as regions_of

from segpipe.inference.cleaning import Cleaning, region_sizes, remove_small_regions
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.samples import ClassTable
from tests.worlds.property_tests import examples
from tests.worlds.segmenters import UNIT

ALL_CLASSES = np.ones(256, bool)
shapes = st.one_of(st.tuples(st.integers(1, 14), st.integers(1, 14)), st.tuples(*[st.integers(1, 7)] * 3))


def blobs(shape, seed, classes=3):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(classes, *shape)), [0] + [1] * len(shape))
    return noise.argmax(0).astype(np.uint8)


@given(shapes, st.integers(0, 1000))
@examples(60)
def test_region_sizes_equal_those_of_skimage(shape, seed):
    ids = blobs(shape, seed)
    regions = regions_of(ids, background=-1, connectivity=len(shape))
    expected = np.bincount(regions.ravel())[regions]
    np.testing.assert_array_equal(region_sizes(ids, ALL_CLASSES), expected)


@given(shapes, st.integers(0, 1000), st.tuples(*[st.integers(0, 30)] * 3))
@examples(80)
def test_small_regions_get_the_nearest_remaining_class(shape, seed, least):
    ids = blobs(shape, seed)
    regions = regions_of(ids, background=-1, connectivity=len(shape))
    removed = np.bincount(regions.ravel())[regions] < np.array(least)[ids]
    assume(not removed.all())
    cleaned = remove_small_regions(ids, least)
    assert cleaned.dtype == np.uint8
    np.testing.assert_array_equal(cleaned[~removed], ids[~removed])
    remaining = np.argwhere(~removed)
    for position in np.argwhere(removed):
        distance = np.sqrt(((remaining - position) ** 2).sum(1))
        nearest = remaining[distance <= distance.min() * 1.05 + 1e-9]
        assert cleaned[tuple(position)] in ids[tuple(nearest.T)]


@given(shapes, st.integers(0, 1000))
@examples(20)
def test_class_ids_are_unchanged_if_all_regions_are_too_small(shape, seed):
    ids = blobs(shape, seed)
    np.testing.assert_array_equal(remove_small_regions(ids, (ids.size + 1,) * 3), ids)


def test_a_hole_is_filled_and_a_speck_is_removed():
    ids = np.zeros((20, 20), np.uint8)
    ids[3:12, 3:12], ids[6:8, 6:8], ids[16, 16] = 1, 0, 1
    expected = np.zeros((20, 20), np.uint8)
    expected[3:12, 3:12] = 1
    np.testing.assert_array_equal(remove_small_regions(ids, (5, 5)), expected)
    assert remove_small_regions(ids, (5, 0))[16, 16] == 1 and remove_small_regions(ids, (0, 5))[6, 6] == 0
    assert remove_small_regions(ids, ()) is ids


class TwoClasses:
    """Predicts the second class with the pixel's value as probability."""

    name = "toy"

    def __call__(self, batch):
        p = np.clip(batch[:, :1], 1e-6, 1 - 1e-6)
        return np.log(np.concatenate([1 - p, p], 1)).astype(np.float32)


@pytest.mark.parametrize("size", [(40, 30), (100, 150)])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.85])
def test_a_threshold_applies_to_whole_images_and_tiles(size, threshold):
    image = np.random.default_rng(0).random(size).astype(np.float32)
    image[np.abs(image - threshold) < 1e-3] = 0
    spec = SegmenterSpec(
        candidate="toy",
        family="unet",
        classes=ClassTable.from_names(["a", "b"]),
        normalisation=UNIT,
        tile=64,
        overlap=16,
        cleaning=Cleaning(threshold=threshold),
    )
    prediction = Segmenter(spec, TwoClasses()).predict(image, probabilities=True)
    np.testing.assert_array_equal(prediction.class_ids, image >= threshold)
    np.testing.assert_array_equal(prediction.probabilities.argmax(0), prediction.class_ids)
    loaded = SegmenterSpec.model_validate_json(spec.model_dump_json())
    assert loaded == spec
    assert spec.cleaning.in_words(spec.classes) == f"b if its probability is at least {threshold:g}"


def test_a_segmenter_cleans_its_class_ids():
    image = np.zeros((30, 30), np.float32)
    image[5:15, 5:15], image[8:10, 8:10], image[25, 25] = 0.9, 0.1, 0.9
    common = {"candidate": "toy", "family": "unet", "classes": ClassTable.from_names(["a", "b"]), "normalisation": UNIT}
    cleaning = Cleaning(least=(6, 4))
    class_ids = Segmenter(SegmenterSpec(**common, cleaning=cleaning), TwoClasses()).predict(image).class_ids
    assert class_ids.sum() == 100 and class_ids[5:15, 5:15].all()
    assert cleaning.in_words(common["classes"]) == "no regions of a under 6 pixels, b under 4 pixels"


def test_shifted_logits_are_described_with_the_classes_at_both_ends():
    classes = ClassTable.from_names(["ground", "cell", "dirt"])
    text = Cleaning(shifts=(0.25, 0.0, -0.5)).in_words(classes)
    assert text == "rare classes predicted less often (logits shifted by -0.50 for dirt to +0.25 for ground)"

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label as regions_of

from segpipe.inference.cleaning import Cleaning, region_sizes, remove_small_regions
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.samples import ClassTable
from tests.inference.test_segmenter import UNIT

EVERY = np.ones(256, bool)
shapes = st.one_of(st.tuples(st.integers(1, 14), st.integers(1, 14)), st.tuples(*[st.integers(1, 7)] * 3))


def blobs(shape, seed, classes=3):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(classes, *shape)), [0] + [1] * len(shape))
    return noise.argmax(0).astype(np.uint8)


@given(shapes, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_regions_are_those_of_skimage(shape, seed):
    ids = blobs(shape, seed)
    regions = regions_of(ids, background=-1, connectivity=len(shape))
    expected = np.bincount(regions.ravel())[regions]
    np.testing.assert_array_equal(region_sizes(ids, EVERY), expected)


@given(shapes, st.integers(0, 1000), st.tuples(*[st.integers(0, 30)] * 3))
@settings(max_examples=80, deadline=None)
def test_small_regions_go_to_the_nearest_class_that_stays(shape, seed, least):
    ids = blobs(shape, seed)
    regions = regions_of(ids, background=-1, connectivity=len(shape))
    gone = np.bincount(regions.ravel())[regions] < np.array(least)[ids]
    found = remove_small_regions(ids, least)
    assert found.dtype == np.uint8
    if gone.all():
        np.testing.assert_array_equal(found, ids)
        return
    np.testing.assert_array_equal(found[~gone], ids[~gone])
    stays = np.argwhere(~gone)
    for place in np.argwhere(gone):
        distance = np.sqrt(((stays - place) ** 2).sum(1))
        near = stays[distance <= distance.min() * 1.05 + 1e-9]
        assert found[tuple(place)] in ids[tuple(near.T)]


def test_a_hole_is_filled_and_a_speck_goes():
    ids = np.zeros((20, 20), np.uint8)
    ids[3:12, 3:12], ids[6:8, 6:8], ids[16, 16] = 1, 0, 1
    expected = np.zeros((20, 20), np.uint8)
    expected[3:12, 3:12] = 1
    np.testing.assert_array_equal(remove_small_regions(ids, (5, 5)), expected)
    assert remove_small_regions(ids, (5, 0))[16, 16] == 1 and remove_small_regions(ids, (0, 5))[6, 6] == 0
    assert remove_small_regions(ids, ()) is ids


class TwoClasses:
    """Logits of p = the pixel's own value."""

    name = "toy"

    def __call__(self, batch):
        p = np.clip(batch[:, :1], 1e-6, 1 - 1e-6)
        return np.log(np.concatenate([1 - p, p], 1)).astype(np.float32)


@pytest.mark.parametrize("size", [(40, 30), (100, 150)])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.85])
def test_a_threshold_is_one_on_whole_images_and_in_tiles(size, threshold):
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
    found = Segmenter(spec, TwoClasses()).predict(image, probabilities=True)
    np.testing.assert_array_equal(found.class_ids, image >= threshold)
    np.testing.assert_array_equal(found.probabilities.argmax(0), found.class_ids)
    again = SegmenterSpec.model_validate_json(spec.model_dump_json())
    assert again == spec and spec.cleaning.in_words(spec.classes) == f"b from a probability of {threshold:g} on"


def test_a_segmenter_cleans_what_it_says():
    image = np.zeros((30, 30), np.float32)
    image[5:15, 5:15], image[8:10, 8:10], image[25, 25] = 0.9, 0.1, 0.9
    common = {"candidate": "toy", "family": "unet", "classes": ClassTable.from_names(["a", "b"]), "normalisation": UNIT}
    cleaning = Cleaning(least=(6, 4))
    found = Segmenter(SegmenterSpec(**common, cleaning=cleaning), TwoClasses()).predict(image)
    assert found.class_ids.sum() == 100 and found.class_ids[5:15, 5:15].all()
    assert cleaning.in_words(common["classes"]) == "no regions of a under 6 pixels, b under 4 pixels"

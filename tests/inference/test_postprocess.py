"""Dividing classes into instances."""

import numpy as np
import pytest

from segpipe.inference.postprocess import Postprocess, separate
from segpipe.samples import Instances


def disc(shape, row, column, radius):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def probabilities_of(class_ids, n_classes=2, confidence=0.9):
    probabilities = np.full((n_classes, *class_ids.shape), (1 - confidence) / (n_classes - 1), np.float32)
    for label in range(n_classes):
        probabilities[label][class_ids == label] = confidence
    return probabilities


@pytest.fixture
def touching():
    """Two discs that touch along a few pixels."""
    shape = (40, 64)
    return (disc(shape, 20, 20, 12) | disc(shape, 20, 41, 12)).astype(np.uint8)


def test_watershed_splits_touching_discs_and_components_do_not(touching):
    probabilities = probabilities_of(touching)
    whole = separate(touching, probabilities, Postprocess(method="components"))
    cut = separate(touching, probabilities, Postprocess(method="watershed", h=1.0))
    assert (len(whole), len(cut)) == (1, 2)
    np.testing.assert_array_equal(cut.ids > 0, touching == 1)
    for index, column in enumerate((20, 41)):
        expected = disc(touching.shape, 20, column, 12)
        inside = cut.ids == cut.ids[20, column]
        assert (inside & expected).sum() / (inside | expected).sum() > 0.95, index
    np.testing.assert_allclose(cut.scores, 0.9, atol=1e-6)


def test_a_height_above_the_waist_joins_the_discs(touching):
    assert len(separate(touching, probabilities_of(touching), Postprocess(method="watershed", h=8.0))) == 1


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_instances_lower_than_h_are_not_split(method):
    class_ids = np.zeros((30, 30), np.uint8)
    class_ids[2:4, 2:8] = 1  # two pixels wide
    class_ids[10:25, 10:25] = 1
    instances = separate(class_ids, probabilities_of(class_ids), Postprocess(method=method, h=3.0))
    assert sorted(instances.areas()) == [12, 225]


def test_small_and_uncertain_instances_are_dropped():
    class_ids = np.zeros((20, 30), np.uint8)
    class_ids[1:3, 1:3], class_ids[5:15, 2:12], class_ids[5:15, 15:25] = 1, 1, 2
    probabilities = probabilities_of(class_ids, 3)
    probabilities[2][class_ids == 2] = 0.5
    every = separate(class_ids, probabilities, Postprocess(method="components"))
    assert list(zip(every.classes.tolist(), every.areas().tolist(), strict=True)) == [(1, 4), (1, 100), (2, 100)]
    assert every.scores.tolist() == pytest.approx([0.9, 0.9, 0.5])
    large = separate(class_ids, probabilities, Postprocess(method="components", min_size=5))
    assert large.classes.tolist() == [1, 2]
    sure = separate(class_ids, probabilities, Postprocess(method="components", min_size=5, min_score=0.6))
    assert sure.classes.tolist() == [1] and sure.boxes.tolist() == [[[5, 15], [2, 12]]]


@pytest.mark.parametrize("method", ["components", "watershed"])
@pytest.mark.parametrize("class_ids", [np.zeros((7, 9), np.uint8), np.ones((7, 9), np.uint8)])
def test_empty_and_full_images(method, class_ids):
    instances = separate(class_ids, probabilities_of(class_ids), Postprocess(method=method))
    assert len(instances) == int(class_ids.max()) and instances.ids.dtype == np.uint16
    np.testing.assert_array_equal(instances.class_map(), class_ids)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["components", "watershed"])
def test_each_instance_is_connected_and_of_one_class_and_none_is_lost(seed, method):
    """Compared with skimage's labels of the same classes."""
    from skimage.measure import label

    rng = np.random.default_rng(seed)
    class_ids = np.kron(rng.integers(0, 3, (8, 9)), np.ones((5, 5), int)).astype(np.uint8)
    instances = separate(class_ids, probabilities_of(class_ids, 3), Postprocess(method=method, h=0.5))
    np.testing.assert_array_equal(instances.class_map(), class_ids)
    for number in range(1, len(instances) + 1):
        assert label(instances.ids == number, connectivity=1).max() == 1
    components = sum(label(class_ids == c, connectivity=1).max() for c in (1, 2))
    assert len(instances) == components if method == "components" else len(instances) >= components


def test_ids_without_pixels_are_removed():
    ids = np.zeros((4, 6), np.uint16)
    ids[1:3, 2:5] = 3
    instances = Instances.from_map(ids, [1, 2, 4], [0.1, 0.2, 0.3])
    assert len(instances) == 1 and instances.classes.tolist() == [4] and instances.scores.tolist() == [0.3]
    assert (
        instances.boxes.tolist() == [[[1, 3], [2, 5]]]
        and instances.areas().tolist() == [6]
        and instances.ids.max() == 1
    )
    with pytest.raises(ValueError, match="ids up to 3, 2 classes"):
        Instances.from_map(ids, [1, 2], [0.1, 0.2])


def test_classes_that_form_instances_together():
    """Two touching cells with a nucleus each: two instances of the class that most of their pixels have, not four."""
    cells, probabilities = np.zeros((40, 60), np.uint8), np.zeros((3, 40, 60), np.float32)
    rows, columns = np.mgrid[:40, :60]
    for center in (20, 38):
        distance = (rows - 20) ** 2 + (columns - center) ** 2
        cells[(distance < 100) & (cells == 0)] = 1
        cells[distance < 16] = 2
    probabilities[1][cells > 0], probabilities[2][cells > 0] = 0.5, 0.25
    settings = Postprocess(method="watershed", together=((1, 2),))
    instances = separate(cells, probabilities, settings)
    assert instances.classes.tolist() == [1, 1]
    assert instances.scores == pytest.approx([0.75, 0.75])
    assert np.array_equal(instances.ids > 0, cells > 0)
    assert 2 in separate(cells, probabilities, Postprocess(method="watershed")).classes
    empty = separate(np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.float32), settings)
    assert len(empty) == 0


def test_a_learned_distance_separates_instances_without_a_waist():
    """Three bricks in a row are one bar in the mask; the distance falls between them, in one place less than in the other."""
    class_ids, distance = np.zeros((16, 40), np.uint8), np.zeros((16, 40), np.float32)
    class_ids[3:13, 4:34] = 1
    ramp = 1 - np.abs(np.arange(10) - 4.5) / 5
    distance[3:13, 4:34] = np.tile(np.sqrt(np.outer(ramp, ramp)), 3)
    distance[7:9, 18:30] = np.maximum(distance[7:9, 18:30], 0.8)
    distance[0, 0] = 1.0  # outside of all instances, where it is ignored
    probabilities = probabilities_of(class_ids)

    def split(h):
        return separate(class_ids, probabilities, Postprocess(method="distance", h=h), distance)

    assert len(separate(class_ids, probabilities, Postprocess(method="watershed", h=0.5))) == 1
    np.testing.assert_array_equal(split(0.05).ids[8, 4:34], np.repeat([1, 2, 3], 10))
    assert [len(split(h)) for h in (0.05, 0.3, 0.9)] == [3, 2, 1]
    assert split(0.9).areas().tolist() == [300], "a region with a low maximum is not lost"
    assert len(separate(class_ids, probabilities, Postprocess(method="components"), distance)) == 1, (
        "the distance is used by its own method alone"
    )


def test_a_learned_distance_in_a_volume():
    class_ids = np.zeros((6, 8, 20), np.uint8)
    class_ids[1:5, 1:7, 2:18] = 1
    distance = np.where(class_ids, np.abs(np.arange(20) - 9.5) / 10, 0).astype(np.float32)
    instances = separate(class_ids, probabilities_of(class_ids), Postprocess(method="distance", h=0.1), distance)
    assert len(instances) == 2 and instances.areas().tolist() == [192, 192]

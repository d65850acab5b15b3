import pickle

import numpy as np
import pytest

from segpipe.inference.preprocess import Normalisation
from segpipe.inference.volumes import resample_channel
from segpipe.samples import IGNORE, Sample
from segpipe.training.sampling.crops import batches
from segpipe.training.sampling.volume_crops import VolumeCrops, cut_crop
from tests.worlds.readers import MemoryReader
from tests.worlds.volumes import PATCH, ellipsoid, random_volume, volume_plan


@pytest.fixture(scope="module")
def reader():
    return MemoryReader([ellipsoid(i, spacing=(1.0, 1.0, 1.0 + i % 2)) for i in range(5)])


def center(shape):
    return (np.array(shape) - 1) / 2


@pytest.mark.parametrize("strength", ["off", "medium", "strong"])
def test_a_crop_follows_from_seed_and_position_alone(reader, strength):
    crops, again = (VolumeCrops(reader, volume_plan(augment=strength)) for _ in range(2))
    expected = {position: crops[position] for position in (0, 7, 3)}
    for position in (3, 0, 7):
        image, labels = again[position]
        assert image.shape == (1, *PATCH) and image.dtype == np.float32 and np.isfinite(image).all()
        assert labels.shape == PATCH and labels.dtype == np.uint8 and set(np.unique(labels)) <= {0, 1, 2, IGNORE}
        np.testing.assert_array_equal(image, expected[position][0])
        np.testing.assert_array_equal(labels, expected[position][1])
    assert not np.array_equal(expected[0][0], expected[7][0])


def test_batches_of_volumes_are_the_same_with_workers(reader):
    plan = volume_plan(steps=3)
    no_worker, one_worker = (list(batches(VolumeCrops(reader, plan), plan.recipe, workers)) for workers in (0, 1))
    for (images, labels), (worker_images, worker_labels) in zip(no_worker, one_worker, strict=True):
        assert images.shape == (2, 1, *PATCH) and labels.shape == (2, *PATCH)
        assert bool((images == worker_images).all()) and bool((labels == worker_labels).all())


def test_crops_can_be_pickled_for_spawned_processes(reader):
    crops = VolumeCrops(reader, volume_plan())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(crops))[4][0], crops[4][0])


def test_the_whole_volume_is_a_crop_of_it():
    image, labels = random_volume()
    cropped = cut_crop(image, labels, center(labels.shape), np.eye(3), labels.shape)
    np.testing.assert_array_equal(cropped[0], image)
    np.testing.assert_array_equal(cropped[1], labels)


def test_beyond_the_border_voxels_are_mirrored_and_labels_ignored():
    image, labels = random_volume((4, 5, 6))
    cropped, cropped_labels = cut_crop(image, labels, center(labels.shape), np.eye(3), (6, 5, 10))
    np.testing.assert_array_equal(cropped, np.pad(image, [(1, 1), (0, 0), (2, 2), (0, 0)], mode="reflect"))
    np.testing.assert_array_equal(cropped_labels, np.pad(labels, [(1, 1), (0, 0), (2, 2)], constant_values=IGNORE))


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirrored_crops_are_the_flipped_ones(axes):
    image, labels = random_volume()
    signs = np.where(np.isin(np.arange(3), axes), -1.0, 1.0)
    middle = np.array([4.0, 5.0, 6.0])
    plain = cut_crop(image, labels, middle, np.eye(3), (5, 6, 4))
    mirrored = cut_crop(image, labels, middle, np.diag(signs), (5, 6, 4))
    np.testing.assert_array_equal(mirrored[0], np.flip(plain[0], axes))
    np.testing.assert_array_equal(mirrored[1], np.flip(plain[1], axes))


def test_a_quarter_turn_equals_numpys():
    """Interpolation compared with a copy: a rotation by 90 degrees about the first axis hits voxels exactly."""
    image, labels = random_volume((7, 9, 9))
    rotation = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    cropped, cropped_labels = cut_crop(image, labels, center(labels.shape), rotation, labels.shape)
    np.testing.assert_allclose(cropped, np.rot90(image, axes=(2, 1)), atol=1e-5)
    np.testing.assert_array_equal(cropped_labels, np.rot90(labels, axes=(2, 1)))


def test_voxels_of_another_size_equal_those_of_resampling():
    image, labels = random_volume((8, 12, 10))
    cropped, cropped_labels = cut_crop(image, labels, center(labels.shape), np.diag([2.0, 0.5, 1.0]), (4, 24, 10))
    for channel in range(2):
        expected = resample_channel(image[..., channel], (4, 24, 10))
        np.testing.assert_allclose(cropped[:, 1:-1, :, channel], expected[:, 1:-1], atol=1e-5)
    assert (cropped_labels != IGNORE).mean() > 0.9


def test_image_and_labels_stay_together_through_rotation_zoom_and_mirroring():
    sample = ellipsoid(3, (28, 30, 26))
    image_of_labels = Sample("m", (sample.labels * 50.0).astype(np.float32)[..., None], sample.labels)
    plain = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    plan = volume_plan(augment="medium", spacing=None).model_copy(update={"normalisation": plain})
    crops = VolumeCrops(MemoryReader([image_of_labels]), plan)
    agreements = []
    for position in range(12):
        image, labels = crops[position]
        counted = labels != IGNORE
        agreements.append(np.corrcoef(image[0][counted], labels[counted])[0, 1])
    assert min(agreements) > 0.9


def test_a_share_of_the_crops_lies_around_a_rare_class():
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[50:53, 5:8, 30:33] = 1
    sample = Sample("far", np.ones((60, 60, 60, 1), np.float32), labels)
    shares = []
    for rare in (0.0, 1.0):
        crops = VolumeCrops(MemoryReader([sample], 2), volume_plan((12, 12, 12), augment="off", rare_crops=rare))
        shares.append(np.mean([(crops[i][1] == 1).any() for i in range(60)]))
    assert shares[0] < 0.1 and 0.35 < shares[1] < 0.7, "half of the drawn classes are the rare one"
    assert all((crops[i][1] != IGNORE).all() for i in range(20)), "crops stay inside a larger volume"


def test_each_volume_is_seen_once_an_epoch(reader):
    crops = VolumeCrops(reader, volume_plan(rare_crops=0.0))
    for epoch in range(2):
        assert sorted(crops._shuffled(epoch * 5 + i) for i in range(5)) == list(range(5))


def test_a_crop_reads_only_the_part_it_sees():
    """Converting the whole volume to float32 would need 8 GB; here it is a view that repeats one voxel."""
    image = np.broadcast_to(np.uint8(7), (1280, 1280, 1280, 1))
    labels = np.broadcast_to(np.uint8(1), (1280, 1280, 1280))
    rotation = np.array([[0.99, 0.1, 0], [-0.1, 0.99, 0], [0, 0, 1.0]])
    cropped, cropped_labels = cut_crop(image, labels, np.array([600.0, 700, 800]), rotation, (16, 16, 16))
    assert (cropped == 7).all() and (cropped_labels == 1).all()


def test_a_volume_smaller_than_the_crop_lies_anywhere_in_it():
    """Otherwise the network would never learn about the edge of its window, and would predict instances there."""
    sample = ellipsoid(1, (10, 10, 10))
    crops = VolumeCrops(MemoryReader([sample]), volume_plan((14, 14, 14), augment="off", rare_crops=0.5))
    edges = []
    for position in range(60):
        counted = crops[position][1] != IGNORE
        assert counted.sum() == 1000, "the whole volume is inside"
        edges.append((counted[0].any(), counted[-1].any()))
    assert np.mean([first for first, _ in edges]) > 0.05 and np.mean([last for _, last in edges]) > 0.05


def test_a_rotation_is_in_millimetres_for_any_voxel_size(reader):
    target, stored = np.array([2.0, 1.0, 1.5]), np.array([1.0, 1.0, 3.0])
    crops = VolumeCrops(reader, volume_plan(spacing=tuple(target)))
    angle = np.deg2rad(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    step = crops._step(target / stored, rotation, np.ones(3))
    np.testing.assert_allclose(np.diag(stored) @ step @ np.diag(1 / target), rotation, atol=1e-12)

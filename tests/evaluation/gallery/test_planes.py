"""Volumes as pictures."""

import numpy as np

from segpipe.evaluation.gallery.pictures import draw
from segpipe.evaluation.gallery.planes import Planes, flatten
from segpipe.samples import IGNORE
from tests.worlds.volumes import TABLE, ellipsoid


def test_planes_are_cut_where_most_of_the_labels_are():
    truth = np.zeros((8, 10, 12), np.uint8)
    truth[2, 3:6, 9] = 1
    truth[5, :, :] = IGNORE
    nothing = np.zeros((8, 10, 12), np.uint8)
    assert Planes.of([truth, np.ones_like(truth)]).indices == Planes.of([nothing, truth]).indices == (2, 3, 9)
    assert Planes.of([nothing]).indices == (4, 5, 6)


def test_a_picture_has_the_three_planes_in_their_proportions():
    volume = np.arange(4 * 6 * 8, dtype=np.float32).reshape(4, 6, 8)
    planes = Planes((1, 2, 3), (2.0, 1.0, 1.0))
    picture = planes(volume, fill=-1)
    assert picture.shape == (8, 8 + 8 + 6 + 12)
    np.testing.assert_array_equal(picture[:6, :8], volume[1, ::-1])
    np.testing.assert_array_equal(picture[:8, 14:22], np.repeat(volume[:, 2], 2, axis=0)[::-1])
    np.testing.assert_array_equal(picture[:8, 28:], np.repeat(volume[:, :, 3], 2, axis=0)[::-1])
    assert (picture[:, 8:14] == -1).all() and (picture[6:, :8] == -1).all()


def test_thick_slices_are_drawn_thicker():
    planes = Planes.of([np.zeros((10, 40, 40), np.uint8)], spacing=(4.0, 1.0, 1.0))
    assert planes.scale[0] == 4 * planes.scale[1]
    assert planes(np.zeros((10, 40, 40, 3))).shape == (156, 156 * 3 + 12, 3)


def test_image_truth_and_prediction_have_the_same_planes():
    sample = ellipsoid(4)
    image, truth, prediction = flatten(sample.image, sample.labels, sample.labels)
    assert image.shape[:2] == truth.shape == prediction.shape
    counted = truth != IGNORE
    np.testing.assert_array_equal(truth[counted], prediction[counted])
    assert image[..., 0][truth == 1].mean() > 1.2 * image[..., 0][truth == 0].mean()


def test_a_volume_is_drawn_with_its_errors():
    sample = ellipsoid(4)
    wrong = np.where(sample.labels == 1, 0, sample.labels).astype(np.uint8)
    drawn = draw(sample.image, sample.labels, wrong, TABLE, sample.spacing)
    assert {picture.shape for picture in drawn.values()} == {drawn["image"].shape}
    assert drawn["image"].shape[1] <= 480
    missed = (np.abs(drawn["errors"].astype(int) - (86, 180, 233)).sum(-1) < 80).mean()
    assert 0.02 < missed < 0.3, "blue where the front half was missed"

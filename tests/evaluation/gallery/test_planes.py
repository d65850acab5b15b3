import numpy as np

from segpipe.evaluation.gallery.pictures import draw
from segpipe.evaluation.gallery.planes import Planes, flatten
from segpipe.samples import IGNORE
from tests.worlds.volumes import TABLE, ellipsoid


def test_planes_are_cut_where_there_is_most_to_see():
    truth = np.zeros((8, 10, 12), np.uint8)
    truth[2, 3:6, 9] = 1
    truth[5, :, :] = IGNORE
    nothing = np.zeros((8, 10, 12), np.uint8)
    assert Planes.of([truth, np.ones_like(truth)]).places == Planes.of([nothing, truth]).places == (2, 3, 9)
    assert Planes.of([nothing]).places == (4, 5, 6)


def test_a_picture_holds_the_three_slices_in_their_proportions():
    volume = np.arange(4 * 6 * 8, dtype=np.float32).reshape(4, 6, 8)
    planes = Planes((1, 2, 3), (2.0, 1.0, 1.0))
    found = planes(volume, fill=-1)
    assert found.shape == (8, 8 + 8 + 6 + 12)
    np.testing.assert_array_equal(found[:6, :8], volume[1, ::-1])
    np.testing.assert_array_equal(found[:8, 14:22], np.repeat(volume[:, 2], 2, axis=0)[::-1])
    np.testing.assert_array_equal(found[:8, 28:], np.repeat(volume[:, :, 3], 2, axis=0)[::-1])
    assert (found[:, 8:14] == -1).all() and (found[6:, :8] == -1).all()


def test_thick_slices_are_drawn_thick():
    planes = Planes.of([np.zeros((10, 40, 40), np.uint8)], spacing=(4.0, 1.0, 1.0))
    assert planes.scale[0] == 4 * planes.scale[1]
    assert planes(np.zeros((10, 40, 40, 3))).shape == (156, 156 * 3 + 12, 3)


def test_image_truth_and_prediction_are_cut_alike():
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

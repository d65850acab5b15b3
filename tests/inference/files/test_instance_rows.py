"""Objects as files and rows."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as codes

from segpipe.config import DataParams
from segpipe.data.drawing import outline_instances
from segpipe.data.images import encode_png
from segpipe.inference.files.batch import predict_files
from segpipe.inference.files.instance_rows import ids_png, instance_rows
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.samples import ClassTable, Instances

TABLE = ClassTable.from_names(["background", "cell", "nucleus"])


class Levels:
    """Brightness is the class."""

    name = "levels"

    def __call__(self, batch):
        return 9.0 * (np.arange(3)[None, :, None, None] == np.round(batch[:, :1])).astype(np.float32)


@pytest.fixture
def segmenter():
    plain = Normalisation(low=(0,), high=(100,), mean=(0,), std=(0.01,))
    spec = SegmenterSpec(
        candidate="x",
        family="unet",
        classes=TABLE,
        normalisation=plain,
        stride=1,
        postprocess=Postprocess(method="watershed"),
    )
    return Segmenter(spec, Levels())


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_are_cocos(seed):
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 6, (5, 6)), np.ones((3, 2), int)) * (rng.random((15, 12)) < 0.8)
    found = Instances.from_map(ids, np.ones(5, int), np.linspace(0.1, 0.9, 5))
    for row in instance_rows(found, TABLE, masks=True):
        code = codes.frPyObjects(row.rle.model_dump(), *row.rle.size)
        np.testing.assert_array_equal(codes.decode(code), found.ids == row.id)
        assert row.area == codes.area(code)
        assert [row.box.x, row.box.y, row.box.width, row.box.height] == codes.toBbox(code).tolist()


def test_each_object_is_outlined_within_itself_in_its_own_colour():
    ids = np.zeros((20, 30), np.uint16)
    ids[2:12, 2:12], ids[2:12, 12:22] = 1, 2
    picture = outline_instances(np.full((20, 30, 3), 90, np.uint8), ids)
    changed = (picture != 90).any(2)
    assert not changed[ids == 0].any() and not changed[4:10, 4:10].any()
    one, two = picture[5, 2], picture[5, 21]
    assert (picture[2, 2:12] == one).all() and (picture[2:12, 11] == one).all() and (picture[2:12, 12] == two).all()
    assert abs(one.astype(int) - two).max() > 60


def test_predict_writes_ids_outlines_and_rows(segmenter, tmp_path):
    image = np.zeros((40, 60), np.uint8)
    y, x = np.mgrid[:40, :60]
    image[((y - 20) ** 2 + (x - 15) ** 2 <= 100) | ((y - 20) ** 2 + (x - 32) ** 2 <= 100)] = 1
    image[30:38, 45:55] = 2
    (tmp_path / "a.png").write_bytes(encode_png(image))
    (row,) = predict_files(segmenter, [tmp_path / "a.png"], tmp_path / "out", DataParams())
    ids = cv2.imread(str(tmp_path / "out" / row["instances"]), cv2.IMREAD_UNCHANGED)
    assert ids.dtype == np.uint16 and ids.max() == 3
    np.testing.assert_array_equal(ids > 0, image > 0)
    assert sorted(r["name"] for r in row["objects"]) == ["cell", "cell", "nucleus"]
    assert {"x": 45, "y": 30, "width": 10, "height": 8} in [r["box"] for r in row["objects"]]
    assert all(r["score"] > 0.99 for r in row["objects"])
    overlay = cv2.imread(str(tmp_path / "out" / row["overlay"]))
    assert len({tuple(overlay[20, x]) for x in (5, 42)}) == 2, "two cells, two colours"
    assert (
        ids_png(segmenter.predict(image, instances=True).instances)
        == (tmp_path / "out" / row["instances"]).read_bytes()
    )

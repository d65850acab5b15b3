"""Segmenters of overlapping classes: whole or in tiles, turned, in volumes; and what is written of their answers."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit

from segpipe.inference.files.render import class_shares, mask_png, overlay_png
from segpipe.inference.outputs import Outputs, OverlappingOutputs
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.volumes import labels_on_grid
from segpipe.samples import ClassTable, Prediction

SPECS = [{"name": n, "value": v, "color": (v * 50, 0, 90)} for n, v in (("ground", 0), ("cell", 1), ("nucleus", 4))]
CLASSES = ClassTable.model_validate({"classes": SPECS, "overlapping": True})
SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 8), st.integers(1, 5), st.integers(1, 5)),
    elements=st.floats(-50, 50, width=32),
)


class Brightness:
    """A cell where it is brighter than a fifth, a nucleus below three fifths."""

    name = "toy"

    def __call__(self, batch):
        x = batch[:, :1]
        return np.concatenate([0 * x, 9 * (x - 0.2), 9 * (0.6 - x)], 1).astype(np.float32)


def make(**changes):
    plain = Normalisation(low=(0.0,), high=(1.0,), mean=(0.0,), std=(1.0,))
    spec = SegmenterSpec(
        candidate="toy", family="unet", classes=CLASSES, normalisation=plain, stride=8, tile=64, overlap=16
    )
    return Segmenter(spec.model_copy(update=changes), Brightness())


@given(SCORES)
@settings(max_examples=60, deadline=None)
def test_each_class_has_a_sigmoid_and_a_threshold(scores):
    outputs = OverlappingOutputs(len(scores))
    values = outputs.values(scores[None])[0]
    np.testing.assert_allclose(values, expit(scores), atol=1e-6)
    found = outputs.labels_of_logits(scores)
    expected = sum((scores[k] > 0).astype(int) << (k - 1) for k in range(1, len(scores)))
    np.testing.assert_array_equal(found, expected)
    sure = np.abs(scores).min(0) > 1e-3  # nearer to 0, a probability is a half
    np.testing.assert_array_equal(outputs.labels(values)[sure], found[sure])
    small = np.clip(scores, -12, 12)
    np.testing.assert_allclose(outputs.logits(outputs.values(small[None])), small[None], atol=0.2)


@pytest.mark.parametrize("shape", [(30, 41), (150, 90)], ids=["whole", "tiles"])
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_every_pixel_gets_all_of_its_classes(shape, tta):
    image = np.random.default_rng(3).random(shape).astype(np.float32)
    found = make(tta=tta).predict(image, probabilities=True)
    np.testing.assert_array_equal(found.class_ids, (image > 0.2) + 2 * (image < 0.6))
    np.testing.assert_allclose(found.probabilities[1:], expit([9 * (image - 0.2), 9 * (0.6 - image)]), atol=1e-4)
    assert found.probabilities.sum(0).max() > 1.5


def test_volumes_are_interpolated_before_they_are_told():
    values = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)
    kept, probabilities = labels_on_grid(values, (8, 9, 7), True, OverlappingOutputs(3))
    ids, _ = labels_on_grid(values, (8, 9, 7), False, OverlappingOutputs(3))
    np.testing.assert_array_equal(ids, kept)
    np.testing.assert_array_equal(ids, (probabilities[1] > 0.5) + 2 * (probabilities[2] > 0.5))
    plain, likeliest = labels_on_grid(values, (8, 9, 7), True, Outputs(3))
    np.testing.assert_array_equal(plain, likeliest.argmax(0))


def test_masks_hold_sums_and_shares_are_of_each_class():
    labels = np.array([[0, 1, 2, 3]], np.uint8)
    told = Prediction(labels)
    stored = cv2.imdecode(np.frombuffer(mask_png(told, CLASSES), np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.tolist() == [[0, 1, 4, 5]]
    assert [(share.name, share.pixels, share.share) for share in class_shares(told, CLASSES)] == [
        ("ground", 1, 0.25),
        ("cell", 2, 0.5),
        ("nucleus", 2, 0.5),
    ]
    drawn = overlay_png(np.zeros((1, 4, 3), np.uint8), told, CLASSES)
    assert cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)[0, 3].tolist() == [90, 0, 125], (
        "the mean colour"
    )


def test_models_of_exclusive_classes_read_as_before():
    spec = make().spec.model_copy(update={"classes": ClassTable.from_names(["a", "b"])})
    assert "overlapping" not in spec.model_dump_json()
    assert SegmenterSpec.model_validate_json(make().spec.model_dump_json()).outputs == OverlappingOutputs(3)

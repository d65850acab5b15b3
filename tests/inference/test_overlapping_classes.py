"""Segmenters of overlapping classes: in one piece or in tiles, with test-time augmentation, in volumes; and their masks and overlays."""

import cv2
import numpy as np
import pytest
from hypothesis import given
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
from tests.worlds.property_tests import examples

SPECS = [{"name": n, "value": v, "color": (v * 50, 0, 90)} for n, v in (("ground", 0), ("cell", 1), ("nucleus", 4))]
CLASSES = ClassTable.model_validate({"classes": SPECS, "overlapping": True})
SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 8), st.integers(1, 5), st.integers(1, 5)),
    elements=st.floats(-50, 50, width=32),
)


class Brightness:
    """Predicts cell where the image is brighter than 0.2, and nucleus where it is darker than 0.6."""

    name = "toy"

    def __call__(self, batch):
        x = batch[:, :1]
        return np.concatenate([0 * x, 9 * (x - 0.2), 9 * (0.6 - x)], 1).astype(np.float32)


def make(**changes):
    normalisation = Normalisation(low=(0.0,), high=(1.0,), mean=(0.0,), std=(1.0,))
    spec = SegmenterSpec(
        candidate="toy", family="unet", classes=CLASSES, normalisation=normalisation, stride=8, tile=64, overlap=16
    )
    return Segmenter(spec.model_copy(update=changes), Brightness())


@given(SCORES)
@examples(60)
def test_each_class_has_a_sigmoid_and_a_threshold(scores):
    outputs = OverlappingOutputs(len(scores))
    values = outputs.values(scores[None])[0]
    np.testing.assert_allclose(values, expit(scores), atol=1e-6)
    labels = outputs.labels_of_logits(scores)
    expected = sum((scores[k] > 0).astype(int) << (k - 1) for k in range(1, len(scores)))
    np.testing.assert_array_equal(labels, expected)
    clear = np.abs(scores).min(0) > 1e-3  # closer to 0, a probability is rounded to 0.5
    np.testing.assert_array_equal(outputs.labels(values)[clear], labels[clear])
    small = np.clip(scores, -12, 12)
    np.testing.assert_allclose(outputs.logits(outputs.values(small[None])), small[None], atol=0.2)


@pytest.mark.parametrize("shape", [(30, 41), (150, 90)], ids=["whole", "tiles"])
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_each_pixel_gets_all_of_its_classes(shape, tta):
    image = np.random.default_rng(3).random(shape).astype(np.float32)
    prediction = make(tta=tta).predict(image, probabilities=True)
    np.testing.assert_array_equal(prediction.class_ids, (image > 0.2) + 2 * (image < 0.6))
    expected = expit([9 * (image - 0.2), 9 * (0.6 - image)])
    np.testing.assert_allclose(prediction.probabilities[1:], expected, atol=1e-4)
    assert prediction.probabilities.sum(0).max() > 1.5


def test_volumes_are_resampled_before_labels_are_derived():
    values = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)
    labels, probabilities = labels_on_grid(values, (8, 9, 7), True, OverlappingOutputs(3))
    ids, _ = labels_on_grid(values, (8, 9, 7), False, OverlappingOutputs(3))
    np.testing.assert_array_equal(ids, labels)
    np.testing.assert_array_equal(ids, (probabilities[1] > 0.5) + 2 * (probabilities[2] > 0.5))
    exclusive, probabilities = labels_on_grid(values, (8, 9, 7), True, Outputs(3))
    np.testing.assert_array_equal(exclusive, probabilities.argmax(0))


def test_masks_hold_sums_of_values_and_shares_count_each_class():
    labels = np.array([[0, 1, 2, 3]], np.uint8)
    prediction = Prediction(labels)
    stored = cv2.imdecode(np.frombuffer(mask_png(prediction, CLASSES), np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.tolist() == [[0, 1, 4, 5]]
    assert [(share.name, share.pixels, share.share) for share in class_shares(prediction, CLASSES)] == [
        ("ground", 1, 0.25),
        ("cell", 2, 0.5),
        ("nucleus", 2, 0.5),
    ]
    drawn = overlay_png(np.zeros((1, 4, 3), np.uint8), prediction, CLASSES)
    assert cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)[0, 3].tolist() == [90, 0, 125], (
        "the mean colour"
    )


def test_models_of_exclusive_classes_are_stored_as_before():
    spec = make().spec.model_copy(update={"classes": ClassTable.from_names(["a", "b"])})
    assert "overlapping" not in spec.model_dump_json()
    assert SegmenterSpec.model_validate_json(make().spec.model_dump_json()).outputs == OverlappingOutputs(3)

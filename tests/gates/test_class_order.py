"""A model with its classes in another order gives the same classes by name."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe.gates.class_order import with_class_order
from segpipe.inference.cleaning import Cleaning
from tests.worlds.bundles import CLASSES, toy_image, toy_segmenter


@pytest.mark.parametrize("cleaning", [None, Cleaning(shifts=(0.3, -0.2, 0.1), least=(0, 9, 40))])
def test_names_stay_with_their_pixels(cleaning: Cleaning | None) -> None:
    model = toy_segmenter(1).with_changes(cleaning=cleaning)
    names = ["nucleus", "background", "cell"]
    reordered = with_class_order(model, names)
    assert reordered is not None and reordered.spec.classes.names == names
    image = toy_image(5, 90, 80)
    before, after = model.predict(image, probabilities=True), reordered.predict(image, probabilities=True)
    np.testing.assert_array_equal(np.array(names)[after.class_ids], np.array(CLASSES.names)[before.class_ids])
    assert before.probabilities is not None and after.probabilities is not None
    np.testing.assert_allclose(after.probabilities, before.probabilities[[2, 0, 1]], atol=1e-6)
    np.testing.assert_array_equal(
        reordered.spec.classes.decode(after.class_ids), CLASSES.decode(before.class_ids), "values of mask files"
    )


def test_other_classes_are_not_matched() -> None:
    assert with_class_order(toy_segmenter(1), ["background", "cell", "dirt"]) is None
    assert with_class_order(toy_segmenter(1), ["background", "cell"]) is None

"""Scores while a network trains."""

import numpy as np
import pytest

from segpipe.metrics import confusion
from segpipe.training.scoring import score_confusion


def test_confusion_and_score_by_hand():
    truth = np.array([[0, 0, 1], [1, 255, 1]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    counts = confusion(truth, predicted, 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [1, 2, 0], [0, 0, 0]])
    score = score_confusion(counts)
    assert score.iou_macro == pytest.approx((1 / 3 + 2 / 4) / 2) and score.pixel_accuracy == pytest.approx(3 / 5)
    assert score_confusion(np.zeros((3, 3), np.int64)).iou_macro == 0


def test_classes_that_the_split_does_not_hold_do_not_count() -> None:
    truth, predicted = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 2, 1, 1]], np.uint8)
    score = score_confusion(confusion(truth, predicted, 3))
    assert score.iou_macro == pytest.approx((1 / 2 + 1) / 2), "class 2 is only predicted"
    assert (score.classes, score.can_choose) == (2, True)
    assert not score_confusion(confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 3)).can_choose

"""Confusion matrices as pages show them."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe.pages.components import confusion
from segpipe.pages.components.confusion import ConfusionMatrix, confusion_cells, worst_confusions

COUNTS = np.array([[90, 10, 0], [0, 0, 0], [30, 60, 10]])


def test_shares_are_of_the_true_class() -> None:
    cells = {(c.row, c.column): c.share for c in confusion_cells(COUNTS)}
    assert cells == {(0, 0): 0.9, (0, 1): 0.1, (2, 0): 0.3, (2, 1): 0.6, (2, 2): 0.1}
    assert [(c.row, c.column) for c in worst_confusions(COUNTS, 2)] == [(2, 1), (2, 0)]


def test_a_large_matrix_is_not_drawn_but_its_mistakes_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(ConfusionMatrix.of(COUNTS).cells) == 5
    monkeypatch.setattr(confusion, "MAX_MATRIX_CLASSES", 2)
    matrix = ConfusionMatrix.of(COUNTS)
    assert matrix.cells == [] and len(matrix.mistakes) == 3 and matrix.totals == [100, 0, 100]

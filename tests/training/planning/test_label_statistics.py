"""Class weights and the orientation of images."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.training.planning.label_statistics import balance_class_weights, top_bottom_difference
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draw


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=12), st.floats(0, 1))
def test_class_weights_average_to_one_over_pixels(pixels, balance):
    weights = balance_class_weights(pixels, balance)
    total = sum(pixels)
    if total:
        assert sum(w * p for w, p in zip(weights, pixels, strict=True)) / total == pytest.approx(1, rel=1e-3)
        assert max(weights) <= 100.1 * min(weights)
    assert all(w > 0 for w in weights)
    if balance == 0:
        assert weights == pytest.approx([1.0] * len(pixels))


def test_class_weights_follow_frequency():
    assert balance_class_weights([400, 100], 0.5)[1] == pytest.approx(
        2 * balance_class_weights([400, 100], 0.5)[0], rel=1e-4
    )


def test_streets_have_an_up_and_a_down_and_cells_do_not():
    cells = MemoryReader([draw(i) for i in range(40)])
    streets = []
    for i in range(8):
        sample = draw(i)
        labels = sample.labels.copy()
        labels[40:] = 2
        streets.append(type(sample)(sample.key, sample.image, labels))
    assert top_bottom_difference(cells) < 0.2 < 0.5 < top_bottom_difference(MemoryReader(streets))

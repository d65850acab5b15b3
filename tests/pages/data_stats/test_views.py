"""Views of samples: whole images, parts of them, and slices of volumes."""

from __future__ import annotations

import numpy as np

from segpipe.data.drawing import label_layer
from segpipe.pages.data_stats.views import around_class, region_of, smallest_instance, whole
from segpipe.samples import IGNORE, Sample


def make_sample(labels: np.ndarray, instances: np.ndarray | None = None, **more) -> Sample:
    return Sample("k", np.zeros((*labels.shape, 1), np.uint8), labels, instances, **more)


def test_views_are_around_the_right_region() -> None:
    labels = np.zeros((200, 300), np.uint8)
    labels[100:150, 200:240], labels[10:12, 10:13], labels[190:, :5] = 1, 1, 2
    view = around_class(1)(make_sample(labels))
    assert (view.labels == 1).sum() == 50 * 40
    assert view.labels.shape == (100, 100)
    ids = np.zeros(labels.shape, np.uint16)
    ids[100:150, 200:240], ids[10:12, 10:13] = 7, 9
    smallest = smallest_instance(make_sample(labels, ids))
    assert smallest.box is not None
    assert smallest.ids is not None
    x, y, w, h = smallest.box
    assert (smallest.ids[y : y + h, x : x + w] == 9).all()
    assert (w, h) == (3, 2)
    region = region_of(50)(make_sample(labels))
    assert region.box is not None
    x, y, w, h = region.box
    assert (region.labels[y : y + h, x : x + w] == 2).all()


def test_a_volume_is_shown_in_three_slices_at_true_proportions() -> None:
    labels = np.zeros((10, 20, 30), np.uint8)
    labels[4:6] = 1
    sample = make_sample(labels, spacing=(4.0, 1.0, 1.0))
    view = whole(sample)
    assert view.labels.shape == (40, 30 + 4 + 30 + 4 + 20)  # rows x columns, slices (at 4 mm) x columns, slices x rows
    assert (view.labels[10:30, :30] == 1).all()
    assert (view.labels[:, 30:34] == IGNORE).all()
    assert (view.labels[:, 34:64] == 1).sum() == 8 * 30
    crop = around_class(1)(sample)
    assert (crop.labels == 1).all()


def test_touching_instances_get_separate_outlines() -> None:
    labels = np.ones((6, 8), np.uint8)
    ids = np.repeat(np.array([[1] * 4 + [2] * 4], np.uint16), 6, 0)
    colors = np.array([[0, 0, 0], [9, 8, 7]], np.uint8)
    assert (label_layer(labels, colors)[:, :, 3] < 255).all()
    layer = label_layer(labels, colors, ids)
    assert (layer[:, 3:5, 3] == 255).all()
    assert (layer[:, :3, 3] < 255).all()
    assert tuple(layer[0, 0, :3]) == (9, 8, 7)
    assert not label_layer(np.array([[0, IGNORE]], np.uint8), colors).any(2).all()

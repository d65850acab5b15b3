"""Converting boxes and masks to the instances of an image."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from segpipe.inference.detector import (
    Detections,
    DetectorEngine,
    class_probabilities,
    detect_tiled,
    paste_instances,
    paste_mask,
)
from segpipe.inference.postprocess import Postprocess
from tests.worlds.detections import make_detections

KEEP_ALL = Postprocess(method="detections")


@pytest.mark.parametrize("seed", range(6))
def test_pasting_a_mask_inverts_roi_align(seed):
    """A disc that torchvision's `roi_align` samples into the frame of a box is pasted onto the same pixels, except for its rim."""
    rng = np.random.default_rng(seed)
    radius, (row, column) = rng.uniform(4, 16), rng.uniform(20, 44, 2)
    y, x = np.mgrid[:64, :64]
    disc = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    rows, columns = np.flatnonzero(disc.any(1)), np.flatnonzero(disc.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    masks = torch.from_numpy(disc[None].astype(np.float32))
    (mask,) = project_masks_on_boxes(masks, torch.from_numpy(box[None]), torch.tensor([0]), 28).numpy()
    window, values = paste_mask(mask, box, disc.shape)
    pasted = np.zeros_like(disc)
    pasted[window] = values > 0.5
    assert (pasted & disc).sum() / (pasted | disc).sum() > 0.93
    assert abs(np.argwhere(pasted).mean(0) - np.argwhere(disc).mean(0)).max() < 0.25, "no shift"


def test_a_pixel_belongs_to_the_instance_with_the_highest_score():
    instances = paste_instances(make_detections(((0, 0, 10, 10), 1, 0.6), ((5, 0, 15, 10), 2, 0.9)), (12, 20), KEEP_ALL)
    assert instances.classes.tolist() == [2, 1] and instances.scores.tolist() == pytest.approx([0.9, 0.6])
    assert instances.areas().tolist() == [100, 50] and instances.boxes[1].tolist() == [[0, 10], [0, 5]]
    np.testing.assert_array_equal(instances.class_map()[5], [1] * 5 + [2] * 10 + [0] * 5)


def test_an_instance_mostly_behind_others_is_a_duplicate():
    detections = make_detections(((0, 0, 10, 10), 1, 0.9), ((1, 1, 12, 12), 1, 0.8), ((9, 0, 19, 10), 1, 0.7))
    assert paste_instances(detections, (20, 20), KEEP_ALL).areas().tolist() == [100, 90]


def test_hidden_small_and_uncertain_instances_are_dropped():
    detections = make_detections(
        ((0, 0, 10, 10), 1, 0.9), ((2, 2, 6, 6), 1, 0.8), ((12, 0, 14, 2), 1, 0.7), ((0, 12, 9, 19), 1, 0.3)
    )
    assert len(paste_instances(detections, (20, 20), KEEP_ALL)) == 3, "the second is hidden by the first"
    instances = paste_instances(detections, (20, 20), Postprocess(method="detections", min_size=5, min_score=0.5))
    assert instances.areas().tolist() == [100]


def test_boxes_beyond_the_image_are_cut():
    detections = make_detections(((-5, -5, 5, 5), 1, 0.9), ((18, 15, 30, 30), 1, 0.8), ((40, 40, 50, 50), 1, 0.7))
    assert sorted(paste_instances(detections, (20, 24), KEEP_ALL).areas().tolist()) == [25, 30]


def test_an_image_without_detections():
    empty = Detections(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 28, 28), np.float32)
    )
    assert len(paste_instances(empty, (6, 7), KEEP_ALL)) == 0
    np.testing.assert_array_equal(class_probabilities(empty, (6, 7), 3, 0.5)[0], 1)


def test_probabilities_follow_the_instance_with_the_highest_score():
    p = class_probabilities(
        make_detections(((0, 0, 10, 10), 1, 0.6), ((5, 0, 15, 10), 2, 0.9), ((0, 0, 10, 10), 2, 0.2)), (12, 20), 3, 0.5
    )
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
    assert p[:, 5, 2] == pytest.approx([0.4, 0.6, 0]) and p[:, 11, 2] == pytest.approx([1, 0, 0])
    assert p[:, 5, 12] == pytest.approx([0.1, 0, 0.9], abs=1e-6)
    assert p[:, 5, 7] == pytest.approx(np.array([0.1, 0.6, 0.9]) / 1.6, abs=1e-6)


class Bright(torch.nn.Module):
    """Detects each bright connected region, complete or cut, as a detector would."""

    def forward(self, images):
        from skimage.measure import label, regionprops

        (image,) = images[:, 0].numpy()
        boxes = [(r.bbox[1], r.bbox[0], r.bbox[3], r.bbox[2]) for r in regionprops(label(image > 0))]
        n = len(boxes)
        tensors = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
            "labels": torch.ones(n, dtype=torch.int64),
        }
        return [tensors | {"scores": torch.linspace(0.9, 0.8, n), "masks": torch.ones(n, 1, 28, 28)}]


def test_instances_across_tiles_are_complete_and_counted_once():
    image = np.zeros((1, 160, 224), np.float32)
    rng = np.random.default_rng(0)
    for row in range(4, 150, 20):
        for column in range(4, 214, 20):
            height, width = rng.integers(6, 15, 2)
            image[0, row : row + height, column : column + width] = 1
    engine = DetectorEngine(Bright())
    whole, tiled = (
        paste_instances(detect_tiled(engine, image, tile, 32), image.shape[1:], KEEP_ALL) for tile in (256, 96)
    )
    assert len(whole) == len(tiled) == 8 * 11 == len(detect_tiled(engine, image, 96, 32).scores)
    np.testing.assert_array_equal(whole.ids > 0, tiled.ids > 0)
    assert sorted(map(str, whole.boxes.tolist())) == sorted(map(str, tiled.boxes.tolist()))

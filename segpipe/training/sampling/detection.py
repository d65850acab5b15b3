"""Training on instances: crops with boxes and masks, and the loss of a batch of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segpipe.samples import IGNORE, Sample, instance_classes
from segpipe.training.distributed.process_group import sum_over_ranks
from segpipe.training.sampling.crops import Crops

Target = dict[str, Tensor]
"""boxes (n, 4) int64: x and y of the first corner, and of one past the last; labels (n,) int64; masks (n, P, P) uint8."""

_MIN_PIXELS = 4
"""A smaller part of an instance, cut off by the edge of a crop, is not an instance."""


class InstanceCrops(Crops):
    """Crops like `Crops`, with their instances: ``crops[position] -> (image (C, P, P) float32 normalised, target)``."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Target]:
        image, planes = self.draw(position, class_and_instance)
        return image, target_of(planes[..., 0], planes[..., 1])

    @staticmethod
    def collate(crops: list[tuple[npt.NDArray[np.float32], Any]]) -> tuple[Tensor, Any]:
        """Return a batch of crops: images (N, C, P, P) float32, and their targets in a list."""
        return torch.stack([torch.from_numpy(image) for image, _ in crops]), [target for _, target in crops]


def class_and_instance(sample: Sample) -> npt.NDArray[np.uint16]:
    """Return the class ids and instance ids of a sample as planes of one array, (H, W, 2)."""
    assert sample.labels is not None and sample.instances is not None, "plan has checked it"
    return np.stack([sample.labels.astype(np.uint16), sample.instances], axis=-1)


def target_of(labels: np.ndarray, ids: np.ndarray) -> Target:
    """Return the instances of a crop, each with the class of most of its pixels.

    Ignored pixels, instances of class 0 and instances with fewer than four pixels are left out.

    Args:
        labels: (P, P) class ids.
        ids: (P, P) instance ids, 0 for none.
    """
    ids = np.where(labels == IGNORE, 0, ids)
    instance_ids, class_ids, pixels = instance_classes(labels, ids)
    selected = (instance_ids > 0) & (class_ids > 0) & (pixels >= _MIN_PIXELS)
    masks = ids[None] == instance_ids[selected][:, None, None]
    columns, rows = masks.any(1), masks.any(2)
    edge = ids.shape[1]
    boxes = np.stack(
        [columns.argmax(1), rows.argmax(1), edge - columns[:, ::-1].argmax(1), len(ids) - rows[:, ::-1].argmax(1)],
        axis=1,
    )
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(class_ids[selected]),
        "masks": torch.from_numpy(masks.view(np.uint8)),
    }


def detection_loss(model: torch.nn.Module, batch: Any, device: torch.device) -> Tensor:
    """Compute the objective of a detector: the sum of its losses.

    If several processes train, each draws the proposals to learn from in its own images, and its losses are weighted by the number
    of these. Every image has the same number of proposals, so their losses are the mean over all processes; the loss of masks remains a
    mean over the instances found in one process. (It is common practice to leave all of them so.)

    Args:
        model: the detector.
        batch: images (N, C, P, P) on the device, and their targets in a list.
        device: the device.

    Returns:
        A float32 scalar.
    """
    images, targets = batch
    on_device = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for target in targets]
    losses: list[Tensor] = list(model(images, on_device).values())
    total = torch.stack([loss.float() for loss in losses]).sum()
    count = images.new_full((), len(images), dtype=torch.float32)
    return sum_over_ranks(total * (count / sum_over_ranks(count)))

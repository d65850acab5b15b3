"""A channel that a network learns in addition to the classes: how deep inside its instance a pixel lies.

The watershed floods it, so that touching instances are separated even if their mask has no waist (`segpipe.inference.postprocess`).
The target is the Euclidean distance to the nearest pixel outside the instance, divided by the largest distance of the instance, and
the loss is binary cross entropy, as in StarDist's object probability (Schmidt, Weigert, Broaddus, Myers 2018, arXiv:1806.03535). Seeds
from the maxima of a learned distance are those of Naylor et al. 2019, doi:10.1109/TMI.2018.2865709.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from segpipe.samples import IGNORE, Sample
from segpipe.training.distributed.process_group import sum_over_ranks
from segpipe.training.sampling.crops import Crops
from segpipe.training.sampling.detection import class_and_instance
from segpipe.training.sampling.volume_crops import VolumeCrops

LabelsAndDistance = npt.NDArray[np.uint8]
"""(2, *patch): labels, and the distance in 255ths."""


class DistanceCrops(Crops):
    """Crops like `Crops`, with the distance: ``crops[position] -> (image (C, P, P) float32 normalised, labels (2, P, P) uint8)``."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], LabelsAndDistance]:
        image, planes = self.draw(position, class_and_instance)
        return image, labels_and_distance(planes[..., 0], planes[..., 1])


class DistanceVolumeCrops(VolumeCrops):
    """Crops like `VolumeCrops`, with the distance: ``crops[position] -> (image (C, *patch) float32 normalised, labels (2, *patch))``."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], LabelsAndDistance]:
        image, (labels, ids) = self.draw(position, lambda sample: [sample.labels, sample.instances])
        return image, labels_and_distance(labels, ids, self.grid.spacing)


def labels_and_distance(
    labels: np.ndarray, ids: np.ndarray, spacing: Sequence[float] | None = None
) -> LabelsAndDistance:
    """Return the labels of a crop together with the target of the distance.

    Args:
        labels: (*patch) class ids.
        ids: (*patch) instance ids, 0 for none.
        spacing: voxel size, by axis; None: 1.
    """
    distance = np.rint(255 * normalised_distance(labels, ids, spacing)).astype(np.uint8)
    return np.stack([labels.astype(np.uint8), distance])


def normalised_distance(
    labels: np.ndarray, ids: np.ndarray, spacing: Sequence[float] | None = None
) -> npt.NDArray[np.float32]:
    """Compute how deep inside its instance each pixel lies.

    The instances are those of `Sample.true_instances`. Pixels beyond the edge of the crop and ignored pixels are unknown, and
    therefore form no border: an instance that is cut by an edge is deepest there, and one that fills its surroundings completely is
    1 everywhere.

    Args:
        labels: (*patch) class ids.
        ids: (*patch) instance ids, 0 for none.
        spacing: voxel size, by axis; None: 1.

    Returns:
        (*patch), float32: 1 at the deepest pixels of each instance, falling towards its border, and 0 outside.
    """
    from scipy import ndimage

    objects = Sample("", np.empty(0), labels.astype(np.uint8), np.where(labels == IGNORE, 0, ids)).true_instances()
    distance = np.zeros(labels.shape, np.float32)
    for number, box in enumerate(objects.boxes.tolist(), 1):
        # One pixel more on each side contains the nearest pixels outside the instance.
        surroundings = tuple(slice(max(0, start - 1), stop + 1) for start, stop in box)
        instance = objects.ids[surroundings] == number
        inside = instance | (labels[surroundings] == IGNORE)
        depth = np.ones(instance.shape) if inside.all() else ndimage.distance_transform_edt(inside, spacing)
        distance[surroundings][instance] = depth[instance] / depth[instance].max()
    return distance


class LossWithDistance(torch.nn.Module):
    """The loss of classes, plus that of the distance in the channel after theirs; ignored pixels do not count.

    Args:
        class_loss: the loss of the classes.
    """

    def __init__(self, class_loss: torch.nn.Module) -> None:
        super().__init__()
        self.class_loss = class_loss

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            logits: (N, K + 1, ...), any floating dtype.
            labels: (N, 2, ...) uint8, as from `labels_and_distance`.

        Returns:
            A float32 scalar.
        """
        class_ids, target = labels[:, 0], labels[:, 1].float() / 255
        loss: Tensor = self.class_loss(logits[:, :-1], class_ids)
        return loss + distance_loss(logits[:, -1], target, class_ids != IGNORE)


def distance_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Compute the binary cross entropy of the distance, over all processes.

    The mean over the pixels inside instances and that over the pixels outside are added, so that scattered instances are not
    outweighed by their surroundings.

    Args:
        logits: (N, ...), any floating dtype.
        target: (N, ...), 0..1.
        counted: (N, ...) bool: False where a pixel is ignored.

    Returns:
        A float32 scalar.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    inside = (target > 0).float()
    weights = torch.stack([counted * inside, counted * (1 - inside)]).flatten(1)
    sums = sum_over_ranks(torch.cat([(weights * loss.flatten()).sum(1), weights.sum(1)]))
    return (sums[:2] / sums[2:].clamp_min(1)).sum()

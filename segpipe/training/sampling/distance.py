"""A channel that a network learns beside the classes: how deep in its object a pixel lies. The watershed floods it, so that objects
that touch come apart also where their mask has no waist (`segpipe.inference.postprocess`).

The target is the Euclidean distance to the nearest pixel outside of the object, divided by the largest of the object, and its
cost is binary cross entropy, as StarDist has both for its object probability (Schmidt, Weigert, Broaddus, Myers 2018,
arXiv:1806.03535); seeds from the maxima of a learned distance are those of Naylor et al. 2019, doi:10.1109/TMI.2018.2865709.
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
    """Crops as of `Crops`, with the distance: ``crops[position] -> (image (C, P, P) float32 normalised, marks (2, P, P) uint8)``."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], LabelsAndDistance]:
        image, planes = self.draw(position, class_and_instance)
        return image, labels_and_distance(planes[..., 0], planes[..., 1])


class DistanceVolumeCrops(VolumeCrops):
    """Crops as of `VolumeCrops`, with the distance: ``crops[position] -> (image (C, *patch) float32 normalised, marks (2, *patch))``."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], LabelsAndDistance]:
        image, (labels, ids) = self.draw(position, lambda sample: [sample.labels, sample.instances])
        return image, labels_and_distance(labels, ids, self.grid.spacing)


def labels_and_distance(
    labels: np.ndarray, ids: np.ndarray, spacing: Sequence[float] | None = None
) -> LabelsAndDistance:
    """The labels and the target of a crop, from its labels and object ids, each (*patch). spacing: of voxels, by axis."""
    return np.stack(
        [labels.astype(np.uint8), np.rint(255 * normalised_distance(labels, ids, spacing)).astype(np.uint8)]
    )


def normalised_distance(
    labels: np.ndarray, ids: np.ndarray, spacing: Sequence[float] | None = None
) -> npt.NDArray[np.float32]:
    """(*patch), float32: 1 at the deepest pixels of each object, down to a pixel's share of that at its border, 0 outside.

    Objects are those of `Sample.objects`. What lies beyond the edge of the crop and on ignored pixels is not known, and so no
    border: the part of an object that an edge leaves is deepest there, and what fills all of the box around it is 1 everywhere.
    """
    from scipy import ndimage

    objects = Sample("", np.empty(0), labels.astype(np.uint8), np.where(labels == IGNORE, 0, ids)).objects()
    found = np.zeros(labels.shape, np.float32)
    for number, box in enumerate(objects.boxes.tolist(), 1):
        around = tuple(slice(max(0, start - 1), stop + 1) for start, stop in box)  # what is nearest outside lies in it
        own = objects.ids[around] == number
        inside = own | (labels[around] == IGNORE)
        depth = np.ones(own.shape) if inside.all() else ndimage.distance_transform_edt(inside, spacing)
        found[around][own] = depth[own] / depth[own].max()
    return found


class LossWithDistance(torch.nn.Module):
    """The cost of classes, and of the distance in the channel after theirs; float32. Ignored pixels cost nothing."""

    def __init__(self, classes: torch.nn.Module) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, logits: Tensor, marks: Tensor) -> Tensor:
        """logits: (N, K + 1, ...), any floating dtype; marks: (N, 2, ...), uint8, as of `marks_of`. A scalar."""
        labels, target = marks[:, 0], marks[:, 1].float() / 255
        found: Tensor = self.classes(logits[:, :-1], labels)
        return found + distance_loss(logits[:, -1], target, labels != IGNORE)


def distance_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Binary cross entropy of a soft target (N, ...), 0..1: the mean over the pixels that count (bool) within objects, and that over
    those outside, added up, so that scattered objects are not lost in what is around them. Of all processes."""
    cost = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    within = (target > 0).float()
    shares = torch.stack([counted * within, counted * (1 - within)]).flatten(1)
    sums = sum_over_ranks(torch.cat([(shares * cost.flatten()).sum(1), shares.sum(1)]))
    return (sums[:2] / sums[2:].clamp_min(1)).sum()

"""The training samples and the loss of each kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segpipe.training.losses import SegmentationLoss
from segpipe.training.sampling.crops import Crops, Reader, Samples
from segpipe.training.sampling.detection import InstanceCrops, detection_loss
from segpipe.training.sampling.distance import DistanceCrops, DistanceVolumeCrops, LossWithDistance
from segpipe.training.sampling.progressive import Progressive
from segpipe.training.sampling.volume_crops import VolumeCrops

if TYPE_CHECKING:
    from segpipe.models.registry import Family
    from segpipe.training.plan import Recipe, RecipePlan

Objective = Callable[[torch.nn.Module, Any, torch.device], Tensor]
"""``objective(model, batch, device) -> loss``, a float32 scalar on the device. A batch is a pair: images, float32, already on the
device, and their labels, as the loader made them."""


def samples_of(reader: Reader, plan: RecipePlan) -> Samples:
    """Return the training samples of a plan, by position: each follows from (seed, position) alone.

    Args:
        reader: the training split.
        plan: the plan of the training.
    """
    crops_type: type[Crops | VolumeCrops]
    if plan.volume is not None:
        crops_type = DistanceVolumeCrops if plan.recipe.distance else VolumeCrops
    elif plan.model_family.kind == "detector":
        crops_type = InstanceCrops
    else:
        crops_type = DistanceCrops if plan.recipe.distance else Crops
    full, first = crops_type(reader, plan), plan.recipe.first
    return Progressive(crops_type(reader, plan, first), full, first.steps * plan.recipe.batch) if first else full


def pixelwise_objective(loss: torch.nn.Module) -> Objective:
    """Return the objective of networks that give every pixel a class, or several.

    Args:
        loss: ``loss(logits, labels)``. A batch has images (N, C, P, P) and what the loss takes as labels: (N, P, P) uint8, or
            `segpipe.training.sampling.distance.LabelsAndDistance`.
    """

    def objective(model: torch.nn.Module, batch: Any, device: torch.device) -> Tensor:
        images, labels = batch
        outputs, labels = model(images), labels.to(device, non_blocking=True)
        if isinstance(outputs, tuple):
            return deep_supervision_loss(loss, outputs, labels)
        total: Tensor = loss(outputs, labels)
        return total

    return objective


def deep_supervision_loss(loss: torch.nn.Module, outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Compute the weighted mean of the losses of a network's levels, as nnU-Net does (doi:10.1038/s41592-020-01008-z).

    Args:
        loss: ``loss(logits, labels)``.
        outputs: logits (N, K, ...), the finest level first; each coarser one has half the weight of the one before.
        labels: (..., P, P); for coarser levels, every n-th label is used.
    """
    total, weights = torch.zeros((), device=labels.device), 2.0 - 0.5 ** (len(outputs) - 1)
    for level, logits in enumerate(outputs):
        edges = logits.shape[2:]
        steps = (full // edge for full, edge in zip(labels.shape[-len(edges) :], edges, strict=True))
        every_nth: Any = (..., *(slice(None, None, step) for step in steps))
        total = total + 0.5**level * loss(logits, labels[every_nth])
    return total / weights


def objective_of(family: Family, recipe: Recipe, device: torch.device) -> Objective:
    """Return the objective of a network.

    Args:
        family: the family of the network.
        recipe: the loss and the class weights.
        device: where the loss is computed.
    """
    if family.kind == "detector":
        return detection_loss
    loss = SegmentationLoss(recipe.class_weights, recipe.loss, recipe.overlapping)
    return pixelwise_objective((LossWithDistance(loss) if recipe.distance else loss).to(device))

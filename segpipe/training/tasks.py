"""What a kind of model needs of training beside the loop: its samples, and what a batch of them costs."""

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
    from segpipe.training.plan import Plan, Recipe

Objective = Callable[[torch.nn.Module, Any, torch.device], Tensor]
"""``objective(model, batch, device) -> loss``, a float32 scalar on the device. A batch is a pair: images, float32, on the device
already, and what is known of them, as the loader made it."""


def samples_of(reader: Reader, plan: Plan) -> Samples:
    """The training samples of a plan, by position: each follows from (seed, position) alone."""
    assert plan.recipe is not None
    kind: type[Crops | VolumeCrops]
    if plan.volume is not None:
        kind = DistanceVolumeCrops if plan.recipe.distance else VolumeCrops
    elif plan.model_family.kind == "detector":
        kind = InstanceCrops
    else:
        kind = DistanceCrops if plan.recipe.distance else Crops
    full, first = kind(reader, plan), plan.recipe.first
    return Progressive(kind(reader, plan, first), full, first.steps * plan.recipe.batch) if first else full


def pixelwise_objective(loss: torch.nn.Module) -> Objective:
    """The objective of networks that give every pixel a class, or several. batch: images (N, C, P, P), and what the loss knows
    of them: labels (N, P, P) uint8, or `segpipe.training.sampling.distance.LabelsAndDistance`."""

    def objective(model: torch.nn.Module, batch: Any, device: torch.device) -> Tensor:
        images, labels = batch
        said, labels = model(images), labels.to(device, non_blocking=True)
        found: Tensor = deep_supervision_loss(loss, said, labels) if isinstance(said, tuple) else loss(said, labels)
        return found

    return objective


def deep_supervision_loss(loss: torch.nn.Module, said: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The weighted mean of the losses of a network's levels, as nnU-Net has it (doi:10.1038/s41592-020-01008-z).

    said: logits (N, K, ...), the finest first; each coarser one counts half as much as the one before, and is held against the labels
    (..., P, P) that lie at its places.
    """
    total, weights = torch.zeros((), device=labels.device), 2.0 - 0.5 ** (len(said) - 1)
    for level, logits in enumerate(said):
        edges = logits.shape[2:]
        steps = (whole // own for whole, own in zip(labels.shape[-len(edges) :], edges, strict=True))
        places: Any = (..., *(slice(None, None, step) for step in steps))
        total = total + 0.5**level * loss(logits, labels[places])
    return total / weights


def objective_of(of: Family, recipe: Recipe, device: torch.device) -> Objective:
    """What a batch costs a network of this family."""
    if of.kind == "detector":
        return detection_loss
    classes = SegmentationLoss(recipe.class_weights, recipe.loss, recipe.overlapping)
    return pixelwise_objective((LossWithDistance(classes) if recipe.distance else classes).to(device))

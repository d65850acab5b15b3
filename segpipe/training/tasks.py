"""What a kind of model needs of training beside the loop: its samples, and what a batch of them costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segpipe.training.batches import Crops, Reader, Samples
from segpipe.training.detection import ObjectCrops, detection_loss
from segpipe.training.distance import DistanceCrops, DistanceVolumeCrops, WithDistance
from segpipe.training.losses import SegmentationLoss
from segpipe.training.progressive import Progressive
from segpipe.training.volume_crops import VolumeCrops

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
    elif plan.of.kind == "detector":
        kind = ObjectCrops
    else:
        kind = DistanceCrops if plan.recipe.distance else Crops
    full, first = kind(reader, plan), plan.recipe.first
    return Progressive(kind(reader, plan, first), full, first.steps * plan.recipe.batch) if first else full


def pixelwise(loss: torch.nn.Module) -> Objective:
    """The objective of networks that give every pixel a class, or several. batch: images (N, C, P, P), and what the loss knows
    of them: labels (N, P, P) uint8, or `segpipe.training.distance.Marks`."""

    def objective(model: torch.nn.Module, batch: Any, device: torch.device) -> Tensor:
        images, labels = batch
        found: Tensor = loss(model(images), labels.to(device, non_blocking=True))
        return found

    return objective


def objective_of(of: Family, recipe: Recipe, device: torch.device) -> Objective:
    """What a batch costs a network of this family."""
    if of.kind == "detector":
        return detection_loss
    classes = SegmentationLoss(recipe.class_weights, recipe.loss, recipe.overlapping)
    return pixelwise((WithDistance(classes) if recipe.distance else classes).to(device))

"""The recipe of a network for images: crop size, batch, loss and optimiser, chosen from settings and data, with reasons."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from segpipe.data.manifest.fingerprint import choose_patch
from segpipe.errors import ConfigError
from segpipe.inference.tta import TTA, relative_cost
from segpipe.training.memory import check_parts
from segpipe.training.optim.muon import is_worthwhile
from segpipe.training.optim.optimisers import DEFAULTS
from segpipe.training.plan import Recipe
from segpipe.training.planning.label_statistics import choose_class_weights, choose_orientation

if TYPE_CHECKING:
    import torch

    from segpipe.config import TrainParams
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.models.registry import Family
    from segpipe.training.planning.plan_draft import PlanDraft

REFERENCE_BATCH = 8
"""The batch size for which the usual learning rates hold."""
SMALL_BATCH = 4
"""Crops per step if the budget is short."""
CLIP_NORM = 5.0
_SHRUNK_PATCH = 128
"""Edge of a crop of downscaled images, as the network sees it: it shows as much of an image as a larger crop of full resolution."""


def choose_image_recipe(draft: PlanDraft, shrink: int = 1, batch: int | None = None) -> Recipe:
    """Choose the recipe of a network for images.

    Args:
        draft: the plan so far; reasons are recorded in it.
        shrink: pixels of the image, along each axis, that become one pixel for the network.
        batch: crops per step; None: as set, or the family's default.

    Returns:
        The recipe, with placeholders for everything that is counted in steps.

    Raises:
        ConfigError: A setting does not fit the family or the data.
    """
    settings, fingerprint = draft.settings, draft.fingerprint
    batch = batch or settings.batch or draft.family.batch
    check_batch(draft, batch)
    patch = _choose_patch(draft, shrink)
    free_orientation = choose_orientation(draft)
    class_weights = choose_class_weights(draft)
    size = f"{fingerprint.height.median} x {fingerprint.width.median}"
    draft.explain(
        "patch",
        "as set"
        if settings.patch
        else f"{patch} pixels: images are typically {size}, and small crops give more steps in the same time",
    )
    draft.explain(
        "batch", "as set" if settings.batch else f"{batch}: enough for stable statistics, small enough for many steps"
    )
    return build_recipe(draft, patch, batch, class_weights, free_orientation)


def check_batch(draft: PlanDraft, batch: int) -> None:
    """Raise ConfigError if a batch has too few images for the family, or for the processes and parts that share it."""
    least = draft.family.min_batch
    if batch < least:
        raise ConfigError(
            f"{draft.family.name} normalises over the batch and cannot be trained with fewer than {least} images per batch",
            where="train.batch",
            found=batch,
            fix=f"set it to {least} or more",
        )
    check_parts(batch, draft.settings.accumulate, draft.world_size, least)


def build_recipe(
    draft: PlanDraft, patch: int, batch: int, class_weights: list[float], free_orientation: bool
) -> Recipe:
    """Return the recipe with these choices; all others are the same for images and volumes.

    Args:
        draft: the plan so far; reasons are recorded in it.
        patch: edge of the crop in pixels or voxels.
        batch: crops per step.
        class_weights: by class id.
        free_orientation: whether the images have no up and down.

    Raises:
        ConfigError: A setting does not fit the family.
    """
    settings, family, overlapping = draft.settings, draft.family, draft.fingerprint.classes.overlapping
    draft.explain("loss", _describe_loss(settings, family, overlapping))
    if settings.cleaning == "auto" and family.kind == "network" and not overlapping:
        draft.explain(
            "cleaning",
            "thresholds, specks and holes: chosen on val after training, and used only if the gain is statistically significant",
        )
    if settings.tta != "none":
        draft.explain("test-time augmentation", _describe_tta(settings.tta, family))
    if settings.patience:
        draft.explain("early stopping", f"after {settings.patience} validations without a better score")
    if settings.elastic:
        _check_elastic(settings)
        draft.explain("elastic", "as set: some of the crops are deformed elastically")
    return Recipe(
        steps=1,
        patch=patch,
        batch=batch,
        accumulate=settings.accumulate,
        encoder_rate=settings.encoder_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        schedule=settings.schedule,
        warmup_steps=0,
        clip_norm=CLIP_NORM,
        loss=settings.loss,
        class_weights=class_weights,
        overlapping=overlapping,
        rare_crops=settings.rare_crops,
        ema=settings.ema,
        cleaning=settings.cleaning,
        tta=settings.tta,
        patience=settings.patience,
        augment=settings.augment,
        free_orientation=free_orientation,
        elastic=settings.elastic,
        val_every=1,
        checkpoint_every=1,
        **_choose_optimiser(draft, batch, "adamw" if settings.optimizer == "auto" else settings.optimizer),
    )


def prefer_muon(draft: PlanDraft, network: torch.nn.Module) -> None:
    """Replace AdamW by Muon if the optimiser was left open and orthogonalising the network's kernels costs little of a step."""
    plan = draft.plan
    if draft.settings.optimizer != "auto" or draft.family.kind != "network":
        return
    images_per_process = plan.recipe.batch // draft.world_size
    if is_worthwhile(network, (images_per_process, plan.normalisation.channels, *plan.crop_edges)):
        optimiser = _choose_optimiser(draft, plan.recipe.batch, "muon")
        draft.choose(recipe=plan.recipe.model_copy(update=optimiser))


def _choose_optimiser(draft: PlanDraft, batch: int, name: str) -> dict[str, Any]:
    """Return the fields of the recipe for an optimiser: its name, learning rate and weight decay."""
    settings, defaults = draft.settings, DEFAULTS[name]
    # With "auto", a range test will measure the rate, starting from the rule of thumb.
    preset = settings.learning_rate if settings.learning_rate != "auto" else None
    rate = preset or round(
        draft.family.learning_rate_factor * defaults.learning_rate * (batch / REFERENCE_BATCH) ** 0.5, 6
    )
    decay = defaults.weight_decay if settings.weight_decay is None else settings.weight_decay
    draft.explain(
        "learning rate",
        "as set"
        if preset
        else f"{rate:g}: {defaults.learning_rate:g} for {name} and a batch of {REFERENCE_BATCH}, scaled by the square root of the batch",
    )
    draft.explain(
        "optimizer",
        f"{_describe_optimiser(settings, name)}, weight decay {decay:g}; the learning rate follows {settings.schedule}",
    )
    return {"optimizer": name, "learning_rate": rate, "weight_decay": decay}


def add_distance_channel(draft: PlanDraft, recipe: Recipe) -> Recipe:
    """Return the recipe with one more channel to learn, if instances are separated by a learned distance."""
    if draft.fields["postprocess"] != "distance":
        return recipe
    draft.explain(
        "objects",
        "one more channel learns how deep inside its instance a pixel lies; the watershed floods that channel",
    )
    draft.explain("loss", f"{draft.reasons['loss']} + the binary cross entropy of that depth")
    return recipe.model_copy(update={"distance": True})


def _choose_patch(draft: PlanDraft, shrink: int) -> int:
    """Return the edge of a crop in pixels of the image: as set, or the usual one, rounded down to what the network accepts."""
    family, preset = draft.family, draft.settings.patch
    multiple = math.lcm(32, family.stride * shrink)
    median_edge = _median_edge(draft.fingerprint)
    usual = choose_patch(draft.fingerprint) if shrink == 1 else min(_SHRUNK_PATCH * shrink, median_edge)
    patch = preset or max(usual // multiple * multiple, multiple)
    if patch < family.stride:
        raise ConfigError(
            f"the crop is too small for {family.name}",
            where="train.patch",
            found=patch,
            expected=f"{family.stride} or more",
        )
    if shrink > 1 and patch % multiple:
        raise ConfigError(
            f"the crop does not fit {family.name} with `shrink: {shrink}`",
            where="train.patch",
            found=patch,
            expected=f"a multiple of {multiple}",
        )
    return patch


def can_shrink(fingerprint: Fingerprint) -> bool:
    """Return whether images are large enough to be used at half their resolution."""
    return _median_edge(fingerprint) >= 2 * _SHRUNK_PATCH


def _median_edge(fingerprint: Fingerprint) -> int:
    return min(fingerprint.height.median, fingerprint.width.median)


def _check_elastic(settings: TrainParams) -> None:
    if settings.augment in ("off", "light"):
        raise ConfigError(
            "elastic deformation needs stronger augmentation",
            where="train.augment",
            found=settings.augment,
            expected="medium or strong",
            fix="set it to medium or strong, or remove train.elastic",
        )


def choose_frozen_share(draft: PlanDraft, pretrained: bool) -> float:
    """Return the share of the steps for which the encoder is frozen: as set, or the family's default for a pretrained encoder."""
    preset, family = draft.settings.freeze_encoder, draft.family
    share = preset if preset is not None else family.freeze_encoder if pretrained else 0.0
    if share:
        reason = "as set" if preset else f"{family.name} first trains its decoder on the pretrained features"
        draft.explain("frozen encoder", f"{share:.0%} of the steps: {reason}")
    return share


def _describe_loss(settings: TrainParams, family: Family, overlapping: bool) -> str:
    if family.kind == "detector":
        return "the sum of the losses of its own heads"
    return (
        f"{settings.loss}, for each class separately (a sigmoid): classes overlap"
        if overlapping
        else str(settings.loss)
    )


def _describe_tta(tta: TTA, family: Family) -> str:
    if family.kind == "detector" or (family.dims == 3 and tta in ("d4", "multi_scale")):
        raise ConfigError(
            f"{family.name} does not support this test-time augmentation",
            where="train.tta",
            found=tta,
            expected="none" if family.kind == "detector" else "none, mirror or flips",
        )
    runs = relative_cost(tta, family.dims or 2)
    return f"{tta}: the finished model's outputs are averaged, which costs {runs:.3g} times as much as one"


def _describe_optimiser(settings: TrainParams, name: str) -> str:
    momentum = f" with {'Nesterov ' if settings.nesterov else ''}momentum {settings.momentum:g}"
    encoder = f", the encoder at {settings.encoder_rate:g} times the rate" if settings.encoder_rate != 1 else ""
    return name + (momentum if name == "sgd" and settings.momentum else "") + encoder


def describe_encoder(encoder: str, source: str) -> str:
    """Describe the source of the encoder's initial weights in words."""
    origin = {
        "auto": "with installed ImageNet weights, or else those of the hub",
        "imagenet": "with the hub's ImageNet weights",
        "none": "from random weights",
    }
    return f"{encoder} {origin.get(source, f'with weights from {source}')}"

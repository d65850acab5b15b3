"""What a plan chooses from the data: crop, class weights, orientation. Each choice says why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.data.manifest.fingerprint import choose_patch
from segpipe.errors import ConfigError
from segpipe.inference.tta import TTA, passes
from segpipe.labels import Labelling
from segpipe.training.memory import check_parts
from segpipe.training.optim.muon import is_worthwhile
from segpipe.training.optim.optimisers import DEFAULTS
from segpipe.training.plan import Plan, Recipe

if TYPE_CHECKING:
    import torch

    from segpipe.config import TrainParams
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.models.registry import Family
    from segpipe.training.sampling.crops import Reader

BATCH = 8
LEAST_BATCH = 4
"""Where the budget is short."""
CLIP_NORM = 5.0
_SHRUNK = 128
"""Edge of a crop of smaller images, as the network sees it: as much of an image as a larger crop of full resolution, and cheaper."""
_ORIENTATION_IMAGES = 64
_UPRIGHT = 0.2


def choose_recipe(
    wanted: TrainParams, of: Family, fingerprint: Fingerprint, train: Reader, reasons: dict[str, str], shrink: int = 1
) -> Recipe:
    """What is computed, but for the number of steps (a placeholder of 1 until the steps have been timed). shrink: pixels, along each
    axis, that become one for the network."""
    batch = wanted.batch or of.batch
    if batch < of.least_batch:
        raise ConfigError(
            f"{of.name} normalises over the batch and can't be trained on fewer than {of.least_batch} images",
            where="train.batch",
            found=batch,
            fix=f"set it to {of.least_batch} or more",
        )
    check_parts(batch, wanted.accumulate, wanted.devices * wanted.num_nodes, of.least_batch)
    patch = _choose_patch(wanted, of, fingerprint, shrink)
    free = _lies_freely(wanted, fingerprint, train, reasons)
    weights = _weigh_classes(wanted, fingerprint, reasons)
    size = f"{fingerprint.height.median} x {fingerprint.width.median}"
    reasons["patch"] = (
        "as set"
        if wanted.patch
        else f"{patch} pixels: images are {size} (typically), and small crops give more steps in the same time"
    )
    reasons["batch"] = (
        "as set" if wanted.batch else f"{batch}: enough for steady statistics, small enough for many steps"
    )
    reasons["loss"] = _loss_in_words(wanted, of, fingerprint.classes.overlapping)
    if wanted.cleaning == "auto" and of.kind == "network" and not fingerprint.classes.overlapping:
        reasons["cleaning"] = (
            "borders between classes, specks and holes, chosen on val after training; kept where the gain is beyond chance"
        )
    if wanted.tta != "none":
        reasons["test-time augmentation"] = _tta_in_words(wanted.tta, of)
    if wanted.patience:
        reasons["early stopping"] = f"after {wanted.patience} validations without a better score"
    _check_elastic(wanted, reasons)
    return Recipe(
        steps=1,
        patch=patch,
        batch=batch,
        accumulate=wanted.accumulate,
        encoder_rate=wanted.encoder_rate,
        momentum=wanted.momentum,
        nesterov=wanted.nesterov,
        schedule=wanted.schedule,
        warmup_steps=0,
        clip_norm=CLIP_NORM,
        loss=wanted.loss,
        class_weights=weights,
        overlapping=fingerprint.classes.overlapping,
        rare_crops=wanted.rare_crops,
        ema=wanted.ema,
        cleaning=wanted.cleaning,
        tta=wanted.tta,
        patience=wanted.patience,
        augment=wanted.augment,
        free_orientation=free,
        elastic=wanted.elastic,
        val_every=1,
        checkpoint_every=1,
        **choose_optimiser(wanted, of, batch, reasons),
    )


def choose_optimiser(wanted: TrainParams, of: Family, batch: int, reasons: dict[str, str]) -> dict[str, Any]:
    """What a recipe says of it: its name, learning rate and weight decay. Left open, it is AdamW until the network is known
    (`with_optimiser`)."""
    name = "adamw" if wanted.optimizer == "auto" else wanted.optimizer
    usual = DEFAULTS[name]
    given = wanted.learning_rate if wanted.learning_rate != "auto" else None  # measured later, from the rule on
    rate = given or round(of.rate * usual.learning_rate * (batch / BATCH) ** 0.5, 6)
    decay = usual.weight_decay if wanted.weight_decay is None else wanted.weight_decay
    reasons["learning rate"] = (
        "as set"
        if given
        else f"{rate:g}: {usual.learning_rate:g} for {name} and a batch of {BATCH}, by the root of the batch"
    )
    reasons["optimizer"] = (
        f"{_optimizer_in_words(wanted, name)}, weight decay {decay:g}; the rate goes by {wanted.schedule}"
    )
    return {"optimizer": name, "learning_rate": rate, "weight_decay": decay}


def with_optimiser(draft: Plan, network: torch.nn.Module, wanted: TrainParams, reasons: dict[str, str]) -> Plan:
    """The draft with Muon, where the optimiser was left open and turning the network's kernels costs little beside a step."""
    recipe, of = draft.recipe, draft.model_family
    assert recipe is not None
    edges = draft.volume.patch if draft.volume else (recipe.patch,) * 2
    images = recipe.batch // (wanted.devices * wanted.num_nodes)
    if (
        wanted.optimizer != "auto"
        or of.kind != "network"
        or not is_worthwhile(network, (images, draft.normalisation.channels, *edges))
    ):
        return draft
    own = choose_optimiser(wanted.model_copy(update={"optimizer": "muon"}), of, recipe.batch, reasons)
    return draft.model_copy(update={"recipe": recipe.model_copy(update=own)})


def _choose_patch(wanted: TrainParams, of: Family, fingerprint: Fingerprint, shrink: int) -> int:
    """Edge of a crop, in pixels of the image: as set, or what the network takes of the usual one."""
    multiple = math.lcm(32, of.stride * shrink)
    usual = choose_patch(fingerprint) if shrink == 1 else min(_SHRUNK * shrink, _typical(fingerprint))
    patch = wanted.patch or max(usual // multiple * multiple, multiple)
    if patch < of.stride:
        raise ConfigError(
            f"{of.name} can't look at so small a crop",
            where="train.patch",
            found=patch,
            expected=f"{of.stride} or more",
        )
    if shrink > 1 and patch % multiple:
        raise ConfigError(
            f"crops don't fit {of.name} with `shrink: {shrink}`",
            where="train.patch",
            found=patch,
            expected=f"a multiple of {multiple}",
        )
    return patch


def can_shrink(fingerprint: Fingerprint) -> bool:
    """Whether images are large enough to be seen at half their resolution."""
    return _typical(fingerprint) >= 2 * _SHRUNK


def _typical(fingerprint: Fingerprint) -> int:
    return min(fingerprint.height.median, fingerprint.width.median)


def _check_elastic(wanted: TrainParams, reasons: dict[str, str]) -> None:
    if not wanted.elastic:
        return
    if wanted.augment in ("off", "light"):
        raise ConfigError(
            "crops that are hardly varied are not bent",
            where="train.augment",
            found=wanted.augment,
            expected="medium or strong",
            fix="set it so, or leave train.elastic out",
        )
    reasons["elastic"] = "as set: some of the crops are bent"


def with_frozen_encoder(wanted: TrainParams, of: Family, pretrained: bool, reasons: dict[str, str]) -> TrainParams:
    """The settings with the share of frozen steps filled in: as set, or the family's own where there is something to keep."""
    share = wanted.freeze_encoder
    if share is None:
        share = of.freeze_encoder if pretrained else 0.0
    if share:
        why = (
            "as set" if wanted.freeze_encoder else f"{of.name} starts its decoder on features that are known to be good"
        )
        reasons["frozen encoder"] = f"{share:.0%} of the steps: {why}"
    return wanted.model_copy(update={"freeze_encoder": share})


def _loss_in_words(wanted: TrainParams, of: Family, overlapping: bool) -> str:
    if of.kind == "detector":
        return "the sum of what its own heads ask for"
    return f"{wanted.loss}, of each class by itself (a sigmoid): classes overlap" if overlapping else str(wanted.loss)


def _tta_in_words(tta: TTA, of: Family) -> str:
    if of.kind == "detector" or (of.dims == 3 and tta in ("d4", "multi_scale")):
        raise ConfigError(
            f"{of.name} has no such test-time augmentation",
            where="train.tta",
            found=tta,
            expected="none" if of.kind == "detector" else "none, mirror or flips",
        )
    runs = passes(tta, of.dims or 2)
    return f"{tta}: the finished model's answers are averaged, which costs {runs:.3g} times as much as one"


def _optimizer_in_words(wanted: TrainParams, name: str) -> str:
    momentum = f" with {'Nesterov ' if wanted.nesterov else ''}momentum {wanted.momentum:g}"
    encoder = f", the encoder at {wanted.encoder_rate:g} times the rate" if wanted.encoder_rate != 1 else ""
    return name + (momentum if name == "sgd" and wanted.momentum else "") + encoder


def _weigh_classes(wanted: TrainParams, fingerprint: Fingerprint, reasons: dict[str, str]) -> list[float]:
    """The weight of each class: as set, or by how frequent it is."""
    pixels, names = fingerprint.class_pixels["train"], fingerprint.classes.names
    if wanted.class_weights is None:
        weights = choose_class_weights(pixels, wanted.class_balance)
        why = f"1 / frequency to the power of {wanted.class_balance:g}"
        reasons["class weights"] = f"{why}: {min(weights):.2f} to {max(weights):.2f}"
        return weights
    if set(wanted.class_weights) != set(names):
        unknown = sorted(set(wanted.class_weights) - set(names))
        missing = [name for name in names if name not in wanted.class_weights]
        raise ConfigError(
            "the weights are not those of the dataset's classes",
            where="train.class_weights",
            found=f"{', '.join(unknown)}, which is no class" if unknown else f"nothing for {', '.join(missing)}",
            expected=f"a weight for each of {', '.join(names)}",
        )
    weights = _scaled([wanted.class_weights[name] for name in names], pixels)
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
    reasons["class weights"] = f"as set, a pixel weighs 1 on average: {told}"
    return weights


def choose_class_weights(pixels: list[int], balance: float) -> list[float]:
    """``(1 / frequency) ** balance`` by class, so scaled that a pixel of the training split weighs 1 on average.

    A class without a pixel gets the largest weight of the others; no weight is more than 100 times another.
    """
    total = sum(pixels)
    if not total:
        return [1.0] * len(pixels)
    raw = [(total / count) ** balance if count else 0.0 for count in pixels]
    ceiling = min(max(raw), 100 * min(r for r in raw if r))
    raw = [min(r, ceiling) if r else ceiling for r in raw]
    return _scaled(raw, pixels)


def _scaled(weights: list[float], pixels: list[int]) -> list[float]:
    """The weights as they compare, so that a pixel weighs 1 on average."""
    total = sum(pixels)
    mean = sum(w * count for w, count in zip(weights, pixels, strict=True)) / total if total else 1.0
    return [round(w / mean, 6) for w in weights]


def _lies_freely(wanted: TrainParams, fingerprint: Fingerprint, train: Reader, reasons: dict[str, str]) -> bool:
    """Whether images have no up and no down: as set, or by how classes fill them."""
    if wanted.orientation != "auto":
        free, why = wanted.orientation == "free", "as set"
    else:
        difference = top_bottom_difference(train, fingerprint.classes.labelling)
        free, why = difference < _UPRIGHT, f"classes above and below differ by {difference:.0%} of pixels"
    told = "no up and down, so flips and quarter turns are used" if free else "the images have an up and a down"
    reasons["orientation"] = f"{why}: {told}"
    return free


def top_bottom_difference(train: Reader, labelling: Labelling | None = None) -> float:
    """How differently classes fill the upper and the lower third of the images: total variation, 0 (alike) .. 1.

    Streets have a sky above and a road below; cells under a microscope lie as they please. Looks at up to 64 images.
    """
    labelling = labelling or Labelling(train.class_pixels.shape[1])
    upper, lower = np.zeros(labelling.n_classes), np.zeros(labelling.n_classes)
    for index in np.unique(np.linspace(0, len(train) - 1, _ORIENTATION_IMAGES).astype(int)):
        labels = train[int(index)].labels
        assert labels is not None
        third = max(1, labels.shape[0] // 3)
        upper += labelling.pixels(labels[:third])
        lower += labelling.pixels(labels[-third:])
    if not upper.sum() or not lower.sum():
        return 0.0
    return float(0.5 * np.abs(upper / upper.sum() - lower / lower.sum()).sum())


def describe_encoder(encoder: str, source: str) -> str:
    """Where the encoder's first weights come from, in words."""
    words = {
        "auto": "with ImageNet weights that are installed, or else the hub's",
        "imagenet": "with the hub's ImageNet weights",
        "none": "from random weights",
    }
    return f"{encoder} {words.get(source, f'with weights from {source}')}"

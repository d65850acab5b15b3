"""Choices that follow from the labels of the training split: class weights, and whether images have an up and a down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import ConfigError
from segpipe.labels import Labelling

if TYPE_CHECKING:
    from segpipe.training.planning.plan_draft import PlanDraft
    from segpipe.training.sampling.crops import Reader

_ORIENTATION_IMAGES = 64
_MIN_UPRIGHT_DIFFERENCE = 0.2
"""Images have an up and a down if `top_bottom_difference` is at least this."""
_MAX_WEIGHT_RATIO = 100
"""The largest class weight divided by the smallest."""


def choose_class_weights(draft: PlanDraft) -> list[float]:
    """Return the weight of each class: as set, or derived from its frequency in the training split."""
    settings, fingerprint = draft.settings, draft.fingerprint
    pixels, names = fingerprint.class_pixels["train"], fingerprint.classes.names
    if settings.class_weights is None:
        weights = balance_class_weights(pixels, settings.class_balance)
        rule = f"1 / frequency to the power of {settings.class_balance:g}"
        draft.explain("class weights", f"{rule}: {min(weights):.2f} to {max(weights):.2f}")
        return weights
    if set(settings.class_weights) != set(names):
        unknown = sorted(set(settings.class_weights) - set(names))
        missing = [name for name in names if name not in settings.class_weights]
        raise ConfigError(
            "the class weights do not match the classes of the dataset",
            where="train.class_weights",
            found=f"{', '.join(unknown)}, which is not a class" if unknown else f"nothing for {', '.join(missing)}",
            expected=f"a weight for each of {', '.join(names)}",
        )
    weights = _scale_to_mean_one([settings.class_weights[name] for name in names], pixels)
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
    draft.explain("class weights", f"as set, scaled to 1 per pixel on average: {listed}")
    return weights


def balance_class_weights(pixels: list[int], balance: float) -> list[float]:
    """Compute class weights ``(1 / frequency) ** balance``, scaled so that a pixel of the training split weighs 1 on average.

    Args:
        pixels: pixels of each class in the training split.
        balance: the exponent, 0..1; 0 gives equal weights.

    Returns:
        A weight for each class. A class without pixels gets the largest weight of the others; no weight is more than 100 times
        another.
    """
    total = sum(pixels)
    if not total:
        return [1.0] * len(pixels)
    raw = [(total / count) ** balance if count else 0.0 for count in pixels]
    ceiling = min(max(raw), _MAX_WEIGHT_RATIO * min(weight for weight in raw if weight))
    raw = [min(weight, ceiling) if weight else ceiling for weight in raw]
    return _scale_to_mean_one(raw, pixels)


def _scale_to_mean_one(weights: list[float], pixels: list[int]) -> list[float]:
    """Scale weights so that a pixel weighs 1 on average."""
    total = sum(pixels)
    mean = sum(weight * count for weight, count in zip(weights, pixels, strict=True)) / total if total else 1.0
    return [round(weight / mean, 6) for weight in weights]


def choose_orientation(draft: PlanDraft) -> bool:
    """Return whether images have no up and down: as set, or measured by how classes are distributed in them."""
    settings = draft.settings
    if settings.orientation != "auto":
        free, reason = settings.orientation == "free", "as set"
    else:
        difference = top_bottom_difference(draft.train, draft.fingerprint.classes.labelling)
        free = difference < _MIN_UPRIGHT_DIFFERENCE
        reason = f"the classes of upper and lower thirds differ by {difference:.0%} of their pixels"
    consequence = (
        "no up and down, so vertical flips and quarter turns are used" if free else "the images have an up and a down"
    )
    draft.explain("orientation", f"{reason}: {consequence}")
    return free


def top_bottom_difference(train: Reader, labelling: Labelling | None = None) -> float:
    """Compute how differently classes fill the upper and the lower third of up to 64 images.

    Streets have a sky above and a road below; cells under a microscope lie in any direction.

    Args:
        train: the training images.
        labelling: the meaning of labels; None: class ids.

    Returns:
        The total variation distance between the two distributions of classes: 0 (alike) to 1.
    """
    labelling = labelling or Labelling(train.class_pixels.shape[1])
    upper, lower = np.zeros(labelling.n_classes), np.zeros(labelling.n_classes)
    for index in np.unique(np.linspace(0, len(train) - 1, _ORIENTATION_IMAGES).astype(int)):
        labels = train[int(index)].labels
        assert labels is not None
        third = max(1, labels.shape[0] // 3)
        upper += labelling.count_pixels(labels[:third])
        lower += labelling.count_pixels(labels[-third:])
    if not upper.sum() or not lower.sum():
        return 0.0
    return float(0.5 * np.abs(upper / upper.sum() - lower / lower.sum()).sum())

"""The augmentation of images: the only module that imports albumentations.

A strength changes a training window as follows, in this order:

| | light | medium | strong |
|---|---|---|---|
| left-right flip | 1/2 | 1/2 | 1/2 |
| up-down flip, quarter turns (if the images have no up and down) | 1/2, 3/4 | 1/2, 3/4 | 1/2, 3/4 |
| zoom | 0.8 - 1.25 | 0.74 - 1.65 | 0.5 - 2 |
| rotation, degrees | | up to 8 | up to 20 |
| elastic deformation (Simard et al., 2003), if enabled | | one in 5, by 2 pixels | one in 4, by 4 pixels |
| brightness, contrast, and for RGB saturation and hue | small | medium | large |
| blur, noise (each) | | one in 10 | one in 5 |

Every draw follows from the seed of the call, so a sample is the same whichever process computes it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.config import AugmentStrength
from segpipe.samples import IGNORE

Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""``(image (H, W, C), labels (H, W) or (H, W, n), seed) -> (image, labels)``, both `patch` x `patch`; labels are uint8 or uint16 and
are not interpolated; where no pixel of the window is, they are `IGNORE`."""


@dataclass(frozen=True)
class _Amounts:
    zoom: tuple[float, float]
    """The least and the largest factor."""
    rotation: float
    """The largest angle in degrees."""
    tone: float
    """The largest relative change of brightness and contrast."""
    hue: float
    degrade: float
    """Share of the windows that are blurred, and of those that get noise."""
    elastic: float = 0.0
    """Share of the windows that are deformed elastically."""
    displacement: float = 0.0
    """Root mean square of the displacement of their pixels, in pixels."""


_AMOUNTS: dict[str, _Amounts] = {
    "light": _Amounts(zoom=(0.8, 1.25), rotation=0, tone=0.1, hue=0.01, degrade=0),
    "medium": _Amounts(zoom=(0.74, 1.65), rotation=8, tone=0.25, hue=0.03, degrade=0.1, elastic=0.2, displacement=2),
    "strong": _Amounts(zoom=(0.5, 2), rotation=20, tone=0.4, hue=0.06, degrade=0.2, elastic=0.25, displacement=4),
}
_SMOOTHING_SIGMA = 12.0
"""Standard deviation, in pixels, of the Gaussian that smooths the displacements of an elastic deformation."""
_MAX_WINDOW_RATIO = 1.3
"""The largest window, divided by the patch."""


def window_edge(strength: AugmentStrength, patch: int) -> int:
    """Return the edge of the window that the augmentation of a patch needs: larger, so that zooming out finds real pixels."""
    return patch if strength == "off" else round(patch * min(1 / _AMOUNTS[strength].zoom[0], _MAX_WINDOW_RATIO))


def build_augment(
    strength: AugmentStrength,
    channels: int,
    dtype: str,
    patch: int,
    free_orientation: bool = False,
    elastic: bool = False,
) -> Augment:
    """Return the augmentation for windows of a dataset.

    Args:
        strength: the strength of the augmentation.
        channels: channels of the stored images. 8-bit RGB images get changes of colour; all others get changes of brightness and
            contrast relative to the window's own mean and deviation, and are returned as float32.
        dtype: number type of the stored images.
        patch: edge of the result in pixels.
        free_orientation: whether the images have no up and down (cells under a microscope, not streets).
        elastic: whether windows may be deformed elastically.
    """
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # for one small window at a time, threads would only compete with those of the training step
    rgb = channels == 3 and dtype == "uint8"
    amounts = _AMOUNTS.get(strength)
    steps: list[Any] = _geometry(amounts, free_orientation, elastic) if amounts else []
    steps += [A.CenterCrop(patch, patch)]
    if amounts and rgb:
        tone = (1 - amounts.tone, 1 + amounts.tone)
        steps += [A.ColorJitter(tone, tone, tone, (-amounts.hue, amounts.hue), p=0.8)]
    if amounts and rgb and amounts.degrade:
        steps += [A.GaussianBlur(sigma_limit=(0.3, 1.2), p=amounts.degrade)]
        steps += [A.GaussNoise(std_range=(0.01, 0.05), p=amounts.degrade)]
    compose = A.Compose(steps)

    def augment(image: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        draws = np.random.default_rng(seed)
        # One state for all steps: `set_random_seed` would start each step at the same draw, so their draws would be correlated.
        compose.set_random_state(draws, random.Random(seed))  # noqa: S311
        out = compose(image=image, mask=labels)
        if amounts and not rgb:
            out["image"] = _vary_intensities(out["image"], amounts, draws)
        return out["image"], out["mask"]

    return augment


def _geometry(amounts: _Amounts, free_orientation: bool, elastic: bool) -> list[Any]:
    """Return the steps that move pixels."""
    import albumentations as A
    import cv2

    steps: list[Any] = [A.HorizontalFlip(p=0.5)]
    steps += [A.VerticalFlip(p=0.5), A.RandomRotate90(p=1)] if free_orientation else []
    steps += [
        A.Affine(
            scale=amounts.zoom,
            balanced_scale=True,
            rotate=(-amounts.rotation, amounts.rotation),
            interpolation=cv2.INTER_LINEAR,
            border_mode=cv2.BORDER_CONSTANT,
            fill=0,
            fill_mask=IGNORE,
            p=0.8,
        )
    ]
    if elastic and amounts.elastic:
        # Smoothing uniform noise in [-1, 1] by a Gaussian leaves a root mean square of 1 / (2 sqrt(3 pi) sigma).
        alpha = amounts.displacement * 2 * math.sqrt(3 * math.pi) * _SMOOTHING_SIGMA
        steps += [
            A.ElasticTransform(
                alpha,
                _SMOOTHING_SIGMA,
                noise_distribution="uniform",
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                fill_mask=IGNORE,
                p=amounts.elastic,
            )
        ]
    return steps


def _vary_intensities(image: np.ndarray, amounts: _Amounts, draws: np.random.Generator) -> npt.NDArray[np.float32]:
    """Vary brightness, contrast and noise relative to the window's own statistics, for any number of channels and any dtype."""
    pixels = image.astype(np.float32)
    mean, std = pixels.mean((0, 1)), pixels.std((0, 1))
    contrast = 1 + draws.uniform(-amounts.tone, amounts.tone)
    shift = draws.uniform(-amounts.tone, amounts.tone) * std
    pixels = (pixels - mean) * np.float32(contrast) + (mean + shift).astype(np.float32)
    if draws.random() < amounts.degrade:
        noise = draws.standard_normal(pixels.shape, np.float32) * np.float32(draws.uniform(0.02, 0.1))
        pixels += noise * std
    return pixels

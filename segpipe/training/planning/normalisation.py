"""What becomes of intensities before a network sees them: as set in params.yaml, or chosen from the data and the first weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from segpipe.inference.preprocess import Normalisation
from segpipe.samples import Sample

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.models.weights.encoder_weights import Preprocessing
    from segpipe.training.planning.warm_start import WarmStart
    from segpipe.training.sampling.crops import Reader

_DATASET = "intensity window and mean of the training images"
Setting = Literal["auto", "dataset", "image"] | tuple[float, float]
"""`train.normalisation`."""
_LOOKED_AT = 64
"""Images, spread evenly over the training split, whose intensities are read."""
_PIXELS = 1 << 22
"""Of each of them, at most."""
_UNCALIBRATED = 3.0
"""How many times brighter one volume may be than another, of those with a common unit."""


def choose_normalisation(
    setting: Setting,
    fingerprint: Fingerprint,
    train: Reader,
    pretrained: Preprocessing | None = None,
    heritage: WarmStart | None = None,
) -> tuple[Normalisation, str]:
    """As set, or else that of the release that training goes on from (where it looks at as many channels), that of volumes or images;
    and why, in words. pretrained: what an encoder's first weights expect.
    """
    if setting == "dataset":
        return dataset_normalisation(fingerprint), f"as set: {_DATASET}"
    if setting == "image":
        return per_image_normalisation(fingerprint.channels), "as set: each image by its own values"
    if not isinstance(setting, str):
        low, high = setting
        return window_normalisation(setting, fingerprint.channels, train), f"as set: the window {low:g} to {high:g}"
    if heritage and heritage.spec.normalisation.channels == fingerprint.channels:
        return heritage.spec.normalisation, f"that of {heritage.source}"
    if holds_volumes(train):
        return choose_for_volumes(fingerprint, train)
    return choose_for_images(fingerprint, pretrained)


def choose_for_images(fingerprint: Fingerprint, pretrained: Preprocessing | None) -> tuple[Normalisation, str]:
    """8-bit RGB for pretrained weights: what these were trained on. Everything else: `of_dataset`."""
    if pretrained is None or fingerprint.channels != 3 or fingerprint.dtype != "uint8":
        return dataset_normalisation(fingerprint), _DATASET
    theirs = Normalisation(low=(0.0,) * 3, high=(255.0,) * 3, mean=pretrained.mean, std=pretrained.std)
    return theirs, "what the encoder's weights were trained on"


def choose_for_volumes(fingerprint: Fingerprint, train: Reader) -> tuple[Normalisation, str]:
    """`of_dataset`, or `of_each_image` where the intensities of volumes have no common unit, because the brightest values (99.5th
    percentile) of the 95th volume in a hundred are more than three times those of the 5th.
    """
    bright = [np.percentile(_some(sample), 99.5) for sample in spread_samples(train, _LOOKED_AT)]
    low, high = np.percentile(bright, (5, 95))
    if low > 0 and high <= _UNCALIBRATED * low:
        why = f"one window for all: the brightest values of volumes lie within {low:,.0f} to {high:,.0f}, as those with a unit do"
        return dataset_normalisation(fingerprint), why
    why = (
        f"each volume by its own values: the brightest run from {min(bright):,.0f} to {max(bright):,.0f}, so they have no "
        "common unit"
    )
    return per_image_normalisation(fingerprint.channels), why


def dataset_normalisation(fingerprint: Fingerprint) -> Normalisation:
    """The window from the 0.5th to the 99.5th percentile of the median training image, then the mean and deviation of all of them."""
    low, high = [], []
    for lo, hi in zip(fingerprint.low, fingerprint.high, strict=True):
        low.append(float(lo))
        high.append(float(hi) if hi > lo else float(lo) + 1.0)  # a constant channel
    span = [h - lo for lo, h in zip(low, high, strict=True)]
    return Normalisation(
        low=tuple(low),
        high=tuple(high),
        mean=tuple((m - lo) / s for m, lo, s in zip(fingerprint.mean, low, span, strict=True)),
        std=tuple(max(d / s, 1e-3) for d, s in zip(fingerprint.std, span, strict=True)),
    )


def per_image_normalisation(channels: int) -> Normalisation:
    """Each image by its own values."""
    return Normalisation(
        low=(0.0,) * channels, high=(1.0,) * channels, mean=(0.0,) * channels, std=(1.0,) * channels, per_image=True
    )


def window_normalisation(window: tuple[float, float], channels: int, train: Reader) -> Normalisation:
    """A window to which images are cut, then the mean and the deviation of the training images within it; each of them counts alike,
    whatever its size.
    """
    low, high = window
    mean, square, samples = np.zeros(channels), np.zeros(channels), spread_samples(train, _LOOKED_AT)
    for sample in samples:
        inside = (np.clip(_some(sample).astype(np.float64), low, high) - low) / (high - low)
        mean += inside.mean(0) / len(samples)
        square += np.square(inside).mean(0) / len(samples)
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))
    return Normalisation(
        low=(low,) * channels, high=(high,) * channels, mean=tuple(mean.tolist()), std=tuple(std.tolist()), clip=True
    )


def holds_volumes(train: Reader) -> bool:
    """Whether a dataset is one of volumes."""
    return len(train) > 0 and train[0].image.ndim == 4


def spread_samples(train: Reader, most: int | None = None) -> list[Sample]:
    """The training samples, or so many of them, spread evenly: views of a memory map."""
    count = len(train) if most is None else min(most, len(train))
    return [train[int(index)] for index in np.unique(np.linspace(0, len(train) - 1, count).astype(int))]


def _some(sample: Sample) -> np.ndarray:
    """(n, C): pixels of an image, a few million at the most."""
    columns = sample.image.reshape(-1, sample.image.shape[-1])
    return columns[:: max(1, len(columns) // _PIXELS)]

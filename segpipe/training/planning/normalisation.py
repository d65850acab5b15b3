"""The normalisation of intensities before a network sees them: as set in params.yaml, or chosen from the data and the initial weights."""

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

NormalisationSetting = Literal["auto", "dataset", "image"] | tuple[float, float]
"""The values of `train.normalisation`."""
_DATASET_REASON = "intensity window and mean of the training images"
_MAX_IMAGES = 64
"""Images, spread evenly over the training split, whose intensities are read."""
_MAX_PIXELS = 1 << 22
"""Pixels that are read of each image."""
_MAX_CALIBRATED_RATIO = 3.0
"""Volumes whose intensities have a common unit differ in brightness by no more than this factor."""


def choose_normalisation(
    setting: NormalisationSetting,
    fingerprint: Fingerprint,
    train: Reader,
    pretrained: Preprocessing | None = None,
    warm_start: WarmStart | None = None,
) -> tuple[Normalisation, str]:
    """Choose the normalisation of images or volumes.

    Args:
        setting: `train.normalisation`.
        fingerprint: statistics of the training split.
        train: the training split.
        pretrained: the preprocessing that an encoder's pretrained weights expect.
        warm_start: the release that training continues from; with "auto", its normalisation is used if it has as many channels.

    Returns:
        The normalisation, and the reason in words.
    """
    if setting == "dataset":
        return dataset_normalisation(fingerprint), f"as set: {_DATASET_REASON}"
    if setting == "image":
        return per_image_normalisation(fingerprint.channels), "as set: each image by its own values"
    if not isinstance(setting, str):
        low, high = setting
        normalisation = window_normalisation(setting, fingerprint.channels, train)
        return normalisation, f"as set: the window {low:g} to {high:g}"
    if warm_start and warm_start.spec.normalisation.channels == fingerprint.channels:
        return warm_start.spec.normalisation, f"that of {warm_start.source}"
    if holds_volumes(train):
        return choose_for_volumes(fingerprint, train)
    return choose_for_images(fingerprint, pretrained)


def choose_for_images(fingerprint: Fingerprint, pretrained: Preprocessing | None) -> tuple[Normalisation, str]:
    """Choose the normalisation of the pretrained weights for 8-bit RGB images, and `dataset_normalisation` for all others."""
    if pretrained is None or fingerprint.channels != 3 or fingerprint.dtype != "uint8":
        return dataset_normalisation(fingerprint), _DATASET_REASON
    normalisation = Normalisation(low=(0.0,) * 3, high=(255.0,) * 3, mean=pretrained.mean, std=pretrained.std)
    return normalisation, "the one that the encoder's weights were trained with"


def choose_for_volumes(fingerprint: Fingerprint, train: Reader) -> tuple[Normalisation, str]:
    """Choose `dataset_normalisation`, or `per_image_normalisation` if the intensities of volumes have no common unit.

    They have none if the brightest values (99.5th percentile) of the volume at the 95th percentile are more than three times
    those of the volume at the 5th percentile.
    """
    brightest = [np.percentile(_sampled_pixels(sample), 99.5) for sample in spread_samples(train, _MAX_IMAGES)]
    low, high = np.percentile(brightest, (5, 95))
    if low > 0 and high <= _MAX_CALIBRATED_RATIO * low:
        reason = f"one window for all: the brightest values of volumes lie between {low:,.0f} and {high:,.0f}, so they share a unit"
        return dataset_normalisation(fingerprint), reason
    reason = (
        f"each volume by its own values: the brightest range from {min(brightest):,.0f} to {max(brightest):,.0f}, so they have no "
        "common unit"
    )
    return per_image_normalisation(fingerprint.channels), reason


def dataset_normalisation(fingerprint: Fingerprint) -> Normalisation:
    """Return the window from the 0.5th to the 99.5th percentile of the median training image, then mean and deviation of all images."""
    low, high = [], []
    for channel_low, channel_high in zip(fingerprint.low, fingerprint.high, strict=True):
        low.append(float(channel_low))
        # A constant channel still needs a window.
        high.append(float(channel_high) if channel_high > channel_low else float(channel_low) + 1.0)
    span = [h - lo for lo, h in zip(low, high, strict=True)]
    return Normalisation(
        low=tuple(low),
        high=tuple(high),
        mean=tuple((m - lo) / s for m, lo, s in zip(fingerprint.mean, low, span, strict=True)),
        std=tuple(max(d / s, 1e-3) for d, s in zip(fingerprint.std, span, strict=True)),
    )


def per_image_normalisation(channels: int) -> Normalisation:
    """Return the normalisation of each image by its own values."""
    return Normalisation(
        low=(0.0,) * channels, high=(1.0,) * channels, mean=(0.0,) * channels, std=(1.0,) * channels, per_image=True
    )


def window_normalisation(window: tuple[float, float], channels: int, train: Reader) -> Normalisation:
    """Return the normalisation that clips to a window, with the mean and deviation of the training images within it.

    Each image has the same weight, whatever its size.
    """
    low, high = window
    mean, square, samples = np.zeros(channels), np.zeros(channels), spread_samples(train, _MAX_IMAGES)
    for sample in samples:
        clipped = (np.clip(_sampled_pixels(sample).astype(np.float64), low, high) - low) / (high - low)
        mean += clipped.mean(0) / len(samples)
        square += np.square(clipped).mean(0) / len(samples)
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))
    return Normalisation(
        low=(low,) * channels, high=(high,) * channels, mean=tuple(mean.tolist()), std=tuple(std.tolist()), clip=True
    )


def holds_volumes(train: Reader) -> bool:
    """Return whether a dataset holds volumes."""
    return len(train) > 0 and train[0].image.ndim == 4


def spread_samples(train: Reader, max_count: int | None = None) -> list[Sample]:
    """Return the training samples, or at most `max_count` of them, spread evenly. Their arrays are views of a memory map."""
    count = len(train) if max_count is None else min(max_count, len(train))
    return [train[int(index)] for index in np.unique(np.linspace(0, len(train) - 1, count).astype(int))]


def _sampled_pixels(sample: Sample) -> np.ndarray:
    """Return every n-th pixel of an image, a few million at most: (pixels, C)."""
    pixels = sample.image.reshape(-1, sample.image.shape[-1])
    return pixels[:: max(1, len(pixels) // _MAX_PIXELS)]

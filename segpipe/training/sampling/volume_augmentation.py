"""The augmentation of volumes, in numpy, because albumentations does not rotate or zoom volumes by an arbitrary amount.

Rotation and zoom are one matrix, which is applied by the same interpolation that cuts the crop; intensities are changed after it.

| | light | medium | strong |
|---|---|---|---|
| mirror, along the axes whose two ends look alike | 1/2 | 1/2 | 1/2 |
| zoom | 0.9 - 1.11 | 0.8 - 1.25 | 0.7 - 1.43 |
| rotation about each axis, degrees (thick slices: only within their plane) | | up to 10 | up to 20 |
| brightness, contrast, gamma | small | medium | large |
| noise, one in | | 10 | 5 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.config import AugmentStrength

THICK_SLICE_RATIO = 3.0
"""If voxels are this many times longer along an axis than along the shortest, rotation out of the plane of the slices would blur
them."""
_ROTATED_SHARE = 0.6
"""Share of the crops that are rotated and zoomed; the others keep their voxels unchanged."""


@dataclass(frozen=True)
class _Amounts:
    zoom: float
    """The largest factor; the least is its inverse."""
    rotation: float
    """The largest angle in degrees."""
    tone: float
    """The largest relative change of brightness, contrast and gamma."""
    noise: float
    """Share of the crops with noise."""


_AMOUNTS: dict[str, _Amounts] = {
    "light": _Amounts(zoom=1.11, rotation=0, tone=0.1, noise=0),
    "medium": _Amounts(zoom=1.25, rotation=10, tone=0.2, noise=0.1),
    "strong": _Amounts(zoom=1.43, rotation=20, tone=0.35, noise=0.2),
}


def draw_rotation(
    strength: AugmentStrength, spacing: Sequence[float], draws: np.random.Generator
) -> npt.NDArray[np.float64] | None:
    """Draw a rotation and zoom.

    Args:
        strength: the strength of the augmentation.
        spacing: voxel size of the crop in mm, by axis.
        draws: the random state.

    Returns:
        A matrix (3, 3) in mm for axes (D, H, W); None if the crop is left unchanged.
    """
    if strength == "off" or draws.random() >= _ROTATED_SHARE:
        return None
    amounts = _AMOUNTS[strength]
    matrix = np.eye(3) * np.exp(draws.uniform(-1, 1) * np.log(amounts.zoom))
    thick = [edge > THICK_SLICE_RATIO * min(spacing) for edge in spacing]
    for axis in range(3):
        angle = np.deg2rad(draws.uniform(-amounts.rotation, amounts.rotation))
        first, second = (a for a in range(3) if a != axis)
        if angle and not (thick[first] or thick[second]):
            rotation = np.eye(3)
            rotation[first, first] = rotation[second, second] = np.cos(angle)
            rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ rotation
    return matrix


def draw_mirror(
    strength: AugmentStrength, flips: Sequence[bool], draws: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw along which axes a crop is mirrored.

    Args:
        strength: the strength of the augmentation.
        flips: the axes along which it may be.
        draws: the random state.

    Returns:
        (3,): -1 for an axis along which it is mirrored, otherwise 1.
    """
    drawn = draws.random(3) < 0.5
    return np.where(drawn & np.asarray(flips) & (strength != "off"), -1.0, 1.0)


def vary_intensities(
    patch: npt.NDArray[np.float32], strength: AugmentStrength, draws: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Vary brightness, contrast, gamma and noise of a crop, relative to its own deviation.

    Args:
        patch: (C, D, H, W), normalised.
        strength: the strength of the augmentation.
        draws: the random state.
    """
    if strength == "off":
        return patch
    amounts = _AMOUNTS[strength]
    out = np.empty_like(patch)
    for channel, result in zip(patch, out, strict=True):
        mean, std = float(channel.mean()), max(float(channel.std()), 1e-6)
        contrast, shift, log_gamma = draws.uniform(-amounts.tone, amounts.tone, 3)
        low, high = float(channel.min()), float(channel.max())
        if high > low:
            unit = (channel - low) / (high - low)
            np.power(unit, np.exp(log_gamma), out=result)
            result *= high - low
            result += low
            # Gamma changes the shape of the curve; mean and deviation are set by brightness and contrast.
            gamma_mean, gamma_std = float(result.mean()), max(float(result.std()), 1e-6)
            result -= gamma_mean
            result *= std * (1 + contrast) / gamma_std
            result += mean + shift * std
        else:
            result[:] = channel + shift
        if draws.random() < amounts.noise:
            result += draws.standard_normal(result.shape, np.float32) * np.float32(draws.uniform(0.02, 0.1) * std)
    return out

"""Augmentation of volumes. albumentations turns and zooms no volume by an angle or a factor, so this is numpy alone: turn and zoom
are a matrix, which goes into the one interpolation that cuts the crop, and tones are changed after it.

| | light | medium | strong |
|---|---|---|---|
| mirror, along the axes where both ends look alike | 1/2 | 1/2 | 1/2 |
| zoom | 0.9 - 1.11 | 0.8 - 1.25 | 0.7 - 1.43 |
| turn about each axis, degrees (thick slices: in their own plane alone) | | up to 10 | up to 20 |
| brightness, contrast, gamma | small | middling | large |
| noise, one in | | 10 | 5 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.config import AugmentStrength

THICK_SLICE_RATIO = 3.0
"""Where voxels are this many times longer along an axis than along the shortest, turning out of the plane of the slices smears
them."""
_TURNED = 0.6
"""Share of the crops that are turned and zoomed; the others keep their voxels as they are."""


@dataclass(frozen=True)
class _Amounts:
    zoom: float
    turn: float
    tone: float
    noisy: float


_AMOUNTS: dict[str, _Amounts] = {
    "light": _Amounts(zoom=1.11, turn=0, tone=0.1, noisy=0),
    "medium": _Amounts(zoom=1.25, turn=10, tone=0.2, noisy=0.1),
    "strong": _Amounts(zoom=1.43, turn=20, tone=0.35, noisy=0.2),
}


def draw_rotation(
    strength: AugmentStrength, spacing: Sequence[float], draws: np.random.Generator
) -> npt.NDArray[np.float64] | None:
    """A turn and zoom in mm, (3, 3), for axes (D, H, W); None where the crop is left as it is.

    spacing: size of a voxel of the crop in mm, by axis.
    """
    if strength == "off" or draws.random() >= _TURNED:
        return None
    amounts = _AMOUNTS[strength]
    matrix = np.eye(3) * np.exp(draws.uniform(-1, 1) * np.log(amounts.zoom))
    thick = [edge > THICK_SLICE_RATIO * min(spacing) for edge in spacing]
    for axis in range(3):
        angle = np.deg2rad(draws.uniform(-amounts.turn, amounts.turn))
        first, second = (a for a in range(3) if a != axis)
        if angle and not (thick[first] or thick[second]):
            about = np.eye(3)
            about[first, first] = about[second, second] = np.cos(angle)
            about[first, second], about[second, first] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ about
    return matrix


def draw_mirror(
    strength: AugmentStrength, flips: Sequence[bool], draws: np.random.Generator
) -> npt.NDArray[np.float64]:
    """1 or -1 for each axis: whether the crop is mirrored along it. flips: along which axes it may be."""
    tossed = draws.random(3) < 0.5
    return np.where(tossed & np.asarray(flips) & (strength != "off"), -1.0, 1.0)


def vary_intensities(
    patch: npt.NDArray[np.float32], strength: AugmentStrength, draws: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Other brightness, contrast, gamma and noise for a normalised crop (C, D, H, W), in units of its own spread."""
    if strength == "off":
        return patch
    amounts = _AMOUNTS[strength]
    out = np.empty_like(patch)
    for channel, into in zip(patch, out, strict=True):
        mean, std = float(channel.mean()), max(float(channel.std()), 1e-6)
        contrast, shift, bend = draws.uniform(-amounts.tone, amounts.tone, 3)
        low, high = float(channel.min()), float(channel.max())
        if high > low:
            unit = (channel - low) / (high - low)
            np.power(unit, np.exp(bend), out=into)
            into *= high - low
            into += low
            bent_mean, bent_std = float(into.mean()), max(float(into.std()), 1e-6)
            into -= bent_mean  # gamma bends the curve; mean and spread are what contrast and brightness set
            into *= std * (1 + contrast) / bent_std
            into += mean + shift * std
        else:
            into[:] = channel + shift
        if draws.random() < amounts.noisy:
            into += draws.standard_normal(into.shape, np.float32) * np.float32(draws.uniform(0.02, 0.1) * std)
    return out

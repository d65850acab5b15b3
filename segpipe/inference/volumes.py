"""Predict volumes: resample to the network's voxel size, predict window by window, and resample back to the volume's grid.

Memory: the probabilities of all classes at the network's voxel size (4 bytes each), one weight per voxel, twice the volume itself as
float32, and what the network needs for one window.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from segpipe.inference.outputs import Outputs
from segpipe.inference.tiling import tile_starts

Floats = npt.NDArray[np.float32]
Predict = Callable[[Floats], Floats]
Axes = tuple[int, int, int]
"""One number per axis: depth, height, width."""
Voxel = TypeVar("Voxel", bound=np.generic)

WINDOW_OVERLAP = 0.5
"""Minimum overlap of neighbouring windows along each axis, as a share of the window."""
_SIGMA = 0.125
"""Standard deviation of the Gaussian weights of a window, as a share of its edge."""
_MIN_WEIGHT = 1e-3
_SPACING_TOLERANCE = 0.01
"""Voxel sizes that differ by less than this share are treated as equal: rounding in headers is no reason to interpolate."""


def spacing_ratios(spacing: Sequence[float] | None, target: Sequence[float] | None) -> npt.NDArray[np.float64]:
    """Return how many voxels of a volume one voxel of the target size replaces, per axis.

    Args:
        spacing: Voxel size of the volume in mm; None if it is not known.
        target: Voxel size to resample to, in mm; None if there is none.

    Returns:
        ``target / spacing``, (3,); 1 where both are about equal, or if either is None.
    """
    if spacing is None or target is None:
        return np.ones(3)
    ratio = np.asarray(target, np.float64) / np.asarray(spacing, np.float64)
    return np.where(np.abs(ratio - 1) < _SPACING_TOLERANCE, 1.0, ratio)


def resampled_shape(shape: Sequence[int], ratio: npt.NDArray[np.float64]) -> Axes:
    """Return the shape of a volume whose voxels become `ratio` times as long along each axis; at least one voxel per axis.

    Args:
        shape: Depth, height, width.
        ratio: (3,), see `spacing_ratios`.
    """
    depth, height, width = (max(1, round(n / r)) for n, r in zip(shape, ratio, strict=True))
    return depth, height, width


def resample(channels: npt.NDArray[Voxel], shape: Sequence[int], order: int = 1) -> npt.NDArray[Voxel]:
    """Resample a volume to another shape with the same extent in mm.

    Args:
        channels: (C, D, H, W), any dtype.
        shape: The new depth, height and width.
        order: 1 for linear interpolation, 0 for the nearest voxel.

    Returns:
        (C, *shape), of the same dtype.
    """
    return np.stack([resample_channel(channel, shape, order) for channel in channels])


def resample_channel(channel: npt.NDArray[Voxel], shape: Sequence[int], order: int = 1) -> npt.NDArray[Voxel]:
    """Resample one channel (D, H, W) to `shape`, like `resample`. Beyond the centres of the outer voxels, their values are repeated."""
    from scipy.ndimage import affine_transform

    if channel.shape == tuple(shape):
        return channel
    step = np.array(channel.shape) / np.array(shape)
    # The outer faces of both grids coincide, so the first centre is half a step from the face.
    resampled: npt.NDArray[Voxel] = affine_transform(
        channel, step, 0.5 * step - 0.5, tuple(shape), order=order, mode="nearest"
    )
    return resampled


def window_weights(patch: Axes) -> Floats:
    """Return the weights of a window: a Gaussian around its centre, with maximum 1 and never 0, so that every voxel counts.

    Args:
        patch: Depth, height and width of the window.
    """
    edges = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (_SIGMA * n)) ** 2) for n in patch]
    weights = edges[0][:, None, None] * edges[1][:, None] * edges[2]
    return np.maximum(weights, _MIN_WEIGHT).astype(np.float32)


def windows(shape: Sequence[int], patch: Axes, overlap: float = WINDOW_OVERLAP) -> Iterator[tuple[slice, ...]]:
    """Yield windows that cover a volume.

    Args:
        shape: Depth, height and width of the volume, each at least that of the window.
        patch: Depth, height and width of a window.
        overlap: Minimum overlap of neighbouring windows along each axis, as a share of the window.
    """
    starts = [tile_starts(n, p, int(p * overlap)) for n, p in zip(shape, patch, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + edge) for start, edge in zip(corner, patch, strict=True))


def pad_to_shape(channels: Floats, min_shape: Axes) -> tuple[Floats, tuple[slice, ...]]:
    """Pad a volume by reflection, evenly on both sides.

    Args:
        channels: (C, D, H, W).
        min_shape: Minimum depth, height and width.

    Returns:
        The padded volume, and the position of the original in it (three slices).
    """
    missing = [max(0, edge - n) for edge, n in zip(min_shape, channels.shape[1:], strict=True)]
    padding = [(m // 2, m - m // 2) for m in missing]
    inside = tuple(slice(before, before + n) for (before, _), n in zip(padding, channels.shape[1:], strict=True))
    if not any(missing):
        return channels, inside
    mode = "reflect" if min(channels.shape[1:]) > 1 else "edge"
    return np.pad(channels, [(0, 0), *padding], mode=mode), inside  # type: ignore[call-overload]


def predict_windows(channels: Floats, predict: Predict, n_classes: int, patch: Axes) -> Floats:
    """Predict a volume window by window. Overlapping windows are averaged with `window_weights`.

    Args:
        channels: Normalised volume, (C, D, H, W).
        predict: Maps a batch (1, C, *patch) to values (1, n_classes, *patch), float32.
        n_classes: Number of channels of these values.
        patch: Depth, height and width of a window.

    Returns:
        Values (n_classes, D, H, W), float32.
    """
    padded, inside = pad_to_shape(channels, patch)
    if padded.shape[1:] == patch:
        return predict(padded[None])[0][(slice(None), *inside)]
    weights = window_weights(patch)
    total = np.zeros((n_classes, *padded.shape[1:]), np.float32)
    total_weight = np.zeros(padded.shape[1:], np.float32)
    for window in windows(padded.shape[1:], patch):
        values = predict(np.ascontiguousarray(padded[None, :, *window]))[0]
        total[(slice(None), *window)] += values * weights
        total_weight[window] += weights
    total /= total_weight
    return total[(slice(None), *inside)]


def labels_on_grid(
    values: Floats, shape: Axes, keep_values: bool, outputs: Outputs | None = None
) -> tuple[npt.NDArray[np.uint8], Floats | None]:
    """Resample predicted values to a volume's grid and derive the labels there.

    Args:
        values: (channels, D, H, W), float32, on any grid.
        shape: Depth, height and width of the volume.
        keep_values: Also return the resampled values. Otherwise only one class at a time is in memory at the size of the volume.
        outputs: The meaning of the channels; None for probabilities of exclusive classes.

    Returns:
        Labels (*shape), uint8, and the values (channels, *shape), float32, or None.
    """
    outputs = outputs or Outputs(len(values))
    if keep_values:
        resampled = resample(values, shape)
        return outputs.labels(resampled), resampled
    return outputs.labels(resample_channel(channel, shape) for channel in values), None

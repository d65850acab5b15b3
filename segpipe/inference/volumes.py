"""Volumes through a network: at the voxel size that it was trained on, window by window, and back into the volume's own grid.

Memory: the probabilities of all classes at the network's voxel size (4 bytes each), a weight a voxel, and twice the
volume itself as float32; of the network itself, one window.
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
Voxel = TypeVar("Voxel", bound=np.generic)

WINDOW_OVERLAP = 0.5
"""Of neighbouring windows, along each axis."""
_SIGMA = 0.125
"""Of the Gaussian that weighs a window, as a share of its edge."""
_SAME = 0.01
"""Voxel sizes that differ by less than this are taken for the same: rounding in headers is no reason to interpolate."""


def spacing_ratios(spacing: Sequence[float] | None, target: Sequence[float] | None) -> npt.NDArray[np.float64]:
    """Voxels of size `spacing` to one of size `target`, by axis; 1 where they are about the same, or either is not known."""
    if spacing is None or target is None:
        return np.ones(3)
    found = np.asarray(target, np.float64) / np.asarray(spacing, np.float64)
    return np.where(np.abs(found - 1) < _SAME, 1.0, found)


def resampled_shape(shape: Sequence[int], ratio: npt.NDArray[np.float64]) -> Axes:
    """The shape of a volume whose voxels become `ratio` as long along each axis: at least one voxel."""
    depth, height, width = (max(1, round(n / r)) for n, r in zip(shape, ratio, strict=True))
    return depth, height, width


def resample(channels: npt.NDArray[Voxel], shape: Sequence[int], order: int = 1) -> npt.NDArray[Voxel]:
    """(C, D, H, W) -> (C, *shape), the same extent in mm, linear (`order` 1) or by the nearest voxel (0); dtype is kept."""
    return np.stack([resample_channel(channel, shape, order) for channel in channels])


def resample_channel(channel: npt.NDArray[Voxel], shape: Sequence[int], order: int = 1) -> npt.NDArray[Voxel]:
    """(D, H, W) -> `shape`: as `resample`, of one channel. What lies beyond the centres of the outer voxels repeats them."""
    from scipy.ndimage import affine_transform

    if channel.shape == tuple(shape):
        return channel
    step = np.array(channel.shape) / np.array(shape)
    # Outer faces of both grids coincide, so a voxel's centre lies half a step from the face.
    found: npt.NDArray[Voxel] = affine_transform(
        channel, step, 0.5 * step - 0.5, tuple(shape), order=order, mode="nearest"
    )
    return found


def window_weights(patch: Axes) -> Floats:
    """Weights of a window (D, H, W): a Gaussian around its middle, 1 at the most and never 0, so that every voxel is counted."""
    edges = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (_SIGMA * n)) ** 2) for n in patch]
    weights = edges[0][:, None, None] * edges[1][:, None] * edges[2]
    return np.maximum(weights, 1e-3).astype(np.float32)


def windows(shape: Sequence[int], patch: Axes, overlap: float = WINDOW_OVERLAP) -> Iterator[tuple[slice, ...]]:
    """Windows that cover a volume of this shape (at least `patch`), `overlap` of an edge common to neighbours at the least."""
    along = [tile_starts(n, p, int(p * overlap)) for n, p in zip(shape, patch, strict=True)]
    for corner in itertools.product(*along):
        yield tuple(slice(start, start + edge) for start, edge in zip(corner, patch, strict=True))


def pad_to_shape(channels: Floats, least: Axes) -> tuple[Floats, tuple[slice, ...]]:
    """(C, D, H, W) mirrored evenly to at least `least`, and where the volume lies in it."""
    short = [max(0, edge - n) for edge, n in zip(least, channels.shape[1:], strict=True)]
    around = [(s // 2, s - s // 2) for s in short]
    inside = tuple(slice(before, before + n) for (before, _), n in zip(around, channels.shape[1:], strict=True))
    if not any(short):
        return channels, inside
    mode = "reflect" if min(channels.shape[1:]) > 1 else "edge"
    return np.pad(channels, [(0, 0), *around], mode=mode), inside  # type: ignore[call-overload]


def predict_windows(channels: Floats, predict: Predict, n_classes: int, patch: Axes) -> Floats:
    """Probabilities (n_classes, D, H, W) of a volume (C, D, H, W): the mean over all windows that see a voxel, weighted by
    `gaussian`.

    predict: (1, C, *patch) -> (1, n_classes, *patch) probabilities.
    """
    padded, inside = pad_to_shape(channels, patch)
    if padded.shape[1:] == patch:
        return predict(padded[None])[0][(slice(None), *inside)]
    weights = window_weights(patch)
    total = np.zeros((n_classes, *padded.shape[1:]), np.float32)
    weight = np.zeros(padded.shape[1:], np.float32)
    for window in windows(padded.shape[1:], patch):
        place = (slice(None), *window)
        total[place] += predict(np.ascontiguousarray(padded[None, :, *window]))[0] * weights
        weight[window] += weights
    total /= weight
    return total[(slice(None), *inside)]


def labels_on_grid(
    values: Floats, shape: Axes, keep: bool, outputs: Outputs | None = None
) -> tuple[npt.NDArray[np.uint8], Floats | None]:
    """Class ids at `shape`, from values (channels, D, H, W) of any size, interpolated before classes are told; and these values,
    where they are to be kept. Without that, one class at a time is held at the size of the volume.

    outputs: what the channels are; None: probabilities of exclusive classes.
    """
    outputs = outputs or Outputs(len(values))
    if keep:
        kept = resample(values, shape)
        return outputs.labels(kept), kept
    return outputs.labels(resample_channel(own, shape) for own in values), None

"""The quantities of one image that drift is measured by, computed from arrays with numpy alone.

An image is described by a few numbers: the mean and the standard deviation of each channel, and the share of each class. The
manifest's columns `mean` and `std` are computed by the same functions (`segpipe.data.images.statistics` counts the values faster),
so that the numbers of an image in a request and in a dataset agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

_BAND_PIXELS = 1 << 18
"""Pixels of a channel that are processed at once: the float64 copies stay small, whatever the size of the image."""


def image_quantities(image: np.ndarray, class_pixels: npt.ArrayLike, class_names: Sequence[str]) -> dict[str, float]:
    """Compute the quantities of one image.

    Args:
        image: (H, W, C) or (D, H, W, C), uint8, uint16 or float32, as stored.
        class_pixels: (n_classes,), pixels of each class in the mask or in the prediction (`Labelling.count_pixels` counts them).
        class_names: the names of the classes, (n_classes,).

    Returns:
        The quantities by name, as in `Reference.values`, not rounded.

    Raises:
        ValueError: the dtype of the image is another one.
    """
    means, deviations = channel_moments(image)
    columns = quantity_columns(means[None], deviations[None], np.asarray(class_pixels)[None], class_names)
    return {name: float(column[0]) for name, column in columns.items()}


def quantity_columns(
    means: npt.ArrayLike, deviations: npt.ArrayLike, class_pixels: npt.ArrayLike, class_names: Sequence[str]
) -> dict[str, Values]:
    """Compute the quantities of many images from the numbers of their channels and masks.

    Args:
        means: (images, channels), the mean of each channel.
        deviations: (images, channels), the standard deviation of each channel.
        class_pixels: (images, n_classes), pixels of each class.
        class_names: the names of the classes, (n_classes,).

    Returns:
        One column per quantity, (images,): "mean of channel 1" .., "deviation of channel 1" .., "share of NAME" ... The shares of an
        image without labelled pixels are 0.
    """
    columns: dict[str, Values] = {}
    for label, table in (("mean", means), ("deviation", deviations)):
        by_channel = np.asarray(table, np.float64).T
        columns |= {f"{label} of channel {index + 1}": column for index, column in enumerate(by_channel)}
    pixels = np.asarray(class_pixels, np.float64)
    shares = pixels / np.maximum(pixels.sum(axis=1, keepdims=True), 1)
    return columns | {f"share of {name}": column for name, column in zip(class_names, shares.T, strict=True)}


def channel_moments(image: np.ndarray) -> tuple[Values, Values]:
    """Compute the mean and the standard deviation of each channel.

    Args:
        image: (H, W, C) or (D, H, W, C), uint8, uint16 or float32.

    Returns:
        Means (C,) and standard deviations (C,) over all pixels.

    Raises:
        ValueError: the dtype of the image is another one.
    """
    rows = image.reshape(-1, *image.shape[-2:])
    channels = [rows[:, :, channel] for channel in range(rows.shape[2])]
    if image.dtype == np.float32:
        means, deviations = zip(*map(plane_moments, channels), strict=True)
        return np.array(means), np.array(deviations)
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"images are uint8, uint16 or float32, found {image.dtype}")
    return histogram_moments(np.stack([_histogram(plane) for plane in channels]))


def histogram_moments(counts: npt.NDArray[np.int64]) -> tuple[Values, Values]:
    """Compute means and standard deviations from histograms.

    Args:
        counts: (C, levels), pixels of each channel by value 0 .. levels - 1; every channel has the same number of pixels.

    Returns:
        Means (C,) and standard deviations (C,).
    """
    values = np.arange(counts.shape[1], dtype=np.float64)
    size = int(counts[0].sum())
    means = counts @ values / size
    variances = [row @ (values - mean) ** 2 / size for row, mean in zip(counts, means, strict=True)]
    return means, np.sqrt(variances)


def plane_moments(plane: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Compute the mean and the standard deviation of one channel, (H, W), float32, in two passes over bands of rows."""
    bands = _row_bands(plane)
    mean = sum(float(band.sum(dtype=np.float64)) for band in bands) / plane.size
    square = sum(float(np.square(band - mean, dtype=np.float64).sum()) for band in bands) / plane.size
    return mean, float(np.sqrt(square))


def _histogram(plane: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    levels = int(np.iinfo(plane.dtype).max) + 1
    counts = np.zeros(levels, np.int64)
    for band in _row_bands(plane):
        counts += np.bincount(band.ravel(), minlength=levels)
    return counts


def _row_bands(plane: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return views of consecutive rows of (H, W), with about `_BAND_PIXELS` pixels each."""
    height, width = plane.shape
    rows = max(1, _BAND_PIXELS // max(1, width))
    return [plane[top : top + rows] for top in range(0, height, rows)]

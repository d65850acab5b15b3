"""Convert stored pixels to a network's input: number of channels, intensity window, normalisation, padding."""

from __future__ import annotations

import operator

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segpipe.errors import DataError

_WINDOW_PERCENTILES = (0.5, 99.5)
"""Percentiles of an image's values that bound its own intensity window, so that outliers do not count."""
_MIN_STD = 1e-3
"""Smallest standard deviation of an image's own values."""


class Normalisation(BaseModel):
    """The normalisation of each channel: ``((x - low) / (high - low) - mean) / std``.

    The window maps stored values from low .. high to 0..1; mean and standard deviation are those of the mapped values.

    If intensities have no unit (magnetic resonance), one window does not fit all images. `per_image` then computes the window, the mean
    and the standard deviation from each image, and the numbers here only give the number of channels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: tuple[float, ...]
    """Lower end of the window, per channel, in stored values."""
    high: tuple[float, ...]
    """Upper end of the window."""
    mean: tuple[float, ...]
    """Mean, of values mapped to 0..1."""
    std: tuple[float, ...]
    """Standard deviation, of values mapped to 0..1."""
    per_image: bool = False
    """Use the 0.5th and 99.5th percentiles of each image as window, and the mean and the standard deviation of its values clipped to
    that window."""
    clip: bool = Field(False, exclude_if=operator.not_)
    """Clip values to the window."""

    @model_validator(mode="after")
    def _consistent(self) -> Normalisation:
        if len({len(self.low), len(self.high), len(self.mean), len(self.std)}) != 1:
            raise ValueError("low, high, mean and std need one number per channel each")
        if any(h <= lo for lo, h in zip(self.low, self.high, strict=True)) or any(s <= 0 for s in self.std):
            raise ValueError("high must be above low, and std above 0")
        return self

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    def for_image(self, image: np.ndarray) -> Normalisation:
        """Return the normalisation of one image, which can then be applied to parts of it.

        Args:
            image: (..., C), any real dtype.

        Returns:
            With `per_image`, a normalisation computed from the image's values; otherwise this one.
        """
        if not self.per_image:
            return self
        values = image.reshape(-1, image.shape[-1])
        values = values[:: max(1, len(values) >> 22)]  # about four million pixels are enough for these statistics
        low, high = np.percentile(values, _WINDOW_PERCENTILES, axis=0)
        high = np.where(high > low, high, low + 1.0)  # a constant channel has high == low
        clipped = (np.clip(values, low, high) - low) / (high - low)
        return Normalisation(
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            mean=tuple(clipped.mean(0).tolist()),
            std=tuple(np.maximum(clipped.std(0), _MIN_STD).tolist()),
        )

    def apply(self, image: np.ndarray) -> npt.NDArray[np.float32]:
        """Normalise an image or a volume.

        Args:
            image: (H, W, C) or (D, H, W, C), any real dtype.

        Returns:
            (C, H, W) or (C, D, H, W), float32, contiguous; never a view of the image.
        """
        if self.per_image:
            return self.for_image(image).apply(image)
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scale = 1.0 / ((high - low) * std)  # both affine steps in one: x * scale + shift
        shift = -low * scale - mean / std
        channels_first = np.moveaxis(image, -1, 0)
        channels = np.array(
            channels_first, np.float32, order="C"
        )  # always copies: asarray would return a view of grey float32
        flat = channels.reshape(len(channels), -1)
        flat *= scale[:, None]
        flat += shift[:, None]
        if self.clip:
            np.clip(flat, (-mean / std)[:, None], ((1 - mean) / std)[:, None], out=flat)
        return channels


def fit_channels(image: np.ndarray, channels: int, dims: int = 2) -> np.ndarray:
    """Convert an image to the number of channels that a model takes, if no information is lost.

    Grey becomes three equal channels, and three equal channels become grey. Alpha is no channel of an image here: decoders drop it where
    the file says that a channel is alpha, and nothing else tells a fourth channel from alpha.

    Args:
        image: (H, W) or (H, W, C), any dtype; for volumes (D, H, W) or (D, H, W, C).
        channels: The number of channels.
        dims: 2 for images, 3 for volumes.

    Returns:
        (H, W, channels) or (D, H, W, channels), in the dtype of the image; possibly a view of it.

    Raises:
        DataError: The array is not an image (a volume), is empty, or its channels cannot be converted.
    """
    if image.ndim == dims:
        image = image[..., None]
    if image.ndim != dims + 1 or 0 in image.shape:
        kind, depth = ("an image", "") if dims == 2 else ("a volume", "depth x ")
        raise DataError(
            f"not {kind}, which this model takes",
            found=f"an array of shape {image.shape}",
            expected=f"{depth}height x width x channels",
        )
    image_channels = image.shape[-1]
    if image_channels == channels:
        return image
    if image_channels == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if (
        image_channels == 3
        and channels == 1
        and (image[..., 0] == image[..., 1]).all()
        and (image[..., 0] == image[..., 2]).all()
    ):
        return image[..., :1]
    raise DataError(
        "wrong number of channels",
        found=image_channels,
        expected=channels,
        fix="give images with the same channels as the training images",
    )


def pad_to_multiple(chw: np.ndarray, stride: int, min_size: int = 0) -> np.ndarray:
    """Pad an image by reflection at the bottom and on the right.

    Args:
        chw: (C, H, W).
        stride: Height and width become multiples of this.
        min_size: Minimum height and width.

    Returns:
        The padded image, or the same array if it needs no padding.
    """
    height, width = chw.shape[1:]
    bottom = -max(height, min_size) % stride + max(height, min_size) - height
    right = -max(width, min_size) % stride + max(width, min_size) - width
    if not bottom and not right:
        return chw
    return np.pad(chw, ((0, 0), (0, bottom), (0, right)), mode="reflect" if min(height, width) > 1 else "edge")

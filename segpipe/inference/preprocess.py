"""From stored pixels to what a network was trained on: channels, intensity window, mean and deviation, padding."""

from __future__ import annotations

import operator

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segpipe.errors import DataError

_WINDOW = (0.5, 99.5)
"""Percentiles between which an image's own values lie, outliers left out."""


class Normalisation(BaseModel):
    """``((x - low) / (high - low) - mean) / std`` per channel: the window maps stored values to 0..1, then come mean and std.

    Where intensities have no unit (magnetic resonance), one window fits no two images: `per_image` takes the 0.5th and the 99.5th
    percentile of each image itself, and mean and deviation of its values cut to that window; the numbers here then only
    count the channels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    per_image: bool = False
    clip: bool = Field(False, exclude_if=operator.not_)
    """Whether what lies outside the window becomes its nearer end."""

    @model_validator(mode="after")
    def _consistent(self) -> Normalisation:
        if len({len(self.low), len(self.high), len(self.mean), len(self.std)}) != 1:
            raise ValueError("low, high, mean and std need one number a channel each")
        if any(h <= lo for lo, h in zip(self.low, self.high, strict=True)) or any(s <= 0 for s in self.std):
            raise ValueError("high must be above low, and std above 0")
        return self

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    def of(self, image: np.ndarray) -> Normalisation:
        """What is to be applied to an image (..., C), or to a part of it: this, or with `per_image` what its own values say."""
        if not self.per_image:
            return self
        columns = image.reshape(-1, image.shape[-1])
        columns = columns[:: max(1, len(columns) >> 22)]  # some millions of values tell as much as all of them
        low, high = np.percentile(columns, _WINDOW, axis=0)
        high = np.where(high > low, high, low + 1.0)  # a constant channel
        inside = (np.clip(columns, low, high) - low) / (high - low)
        return Normalisation(
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            mean=tuple(inside.mean(0).tolist()),
            std=tuple(np.maximum(inside.std(0), 1e-3).tolist()),
        )

    def apply(self, image: np.ndarray) -> npt.NDArray[np.float32]:
        """(H, W, C), or of a volume (D, H, W, C), of any real dtype -> (C, H, W) or (C, D, H, W), float32, contiguous."""
        if self.per_image:
            return self.of(image).apply(image)
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scale = 1.0 / ((high - low) * std)  # the two affine steps as one: x * scale + shift
        shift = -low * scale - mean / std
        moved = np.moveaxis(image, -1, 0)
        channels = np.array(moved, np.float32, order="C")  # always a copy: grey float32 would be a view
        flat = channels.reshape(len(channels), -1)
        flat *= scale[:, None]
        flat += shift[:, None]
        if self.clip:
            np.clip(flat, (-mean / std)[:, None], ((1 - mean) / std)[:, None], out=flat)
        return channels


def fit_channels(image: np.ndarray, channels: int, dims: int = 2) -> np.ndarray:
    """Bring an image to the number of channels that a model wants, where that loses nothing.

    image: (H, W) or (H, W, C), of a volume (`dims` 3) with D before. Grey becomes three equal channels, three equal channels
    become grey, alpha is dropped; anything else is refused.
    """
    if image.ndim == dims:
        image = image[..., None]
    if image.ndim != dims + 1 or 0 in image.shape:
        what, axes = ("an image", "") if dims == 2 else ("a volume", "depth x ")
        raise DataError(
            f"not {what}, which this model takes",
            found=f"an array of shape {image.shape}",
            expected=f"{axes}height x width x channels",
        )
    have = image.shape[-1]
    if have == channels:
        return image
    if have == channels + 1 and channels in (1, 3):  # grey + alpha, RGB + alpha
        return image[..., :channels]
    if have == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if (
        have in (3, 4)
        and channels == 1
        and (image[..., 0] == image[..., 1]).all()
        and (image[..., 0] == image[..., 2]).all()
    ):
        return image[..., :1]
    raise DataError(
        "wrong number of channels",
        found=have,
        expected=channels,
        fix="give images of the kind that the model was trained on",
    )


def pad_to_multiple(chw: np.ndarray, stride: int, least: int = 0) -> np.ndarray:
    """(C, H, W) -> the same, mirrored at the bottom and the right to a multiple of `stride` (and at least `least`)."""
    height, width = chw.shape[1:]
    bottom = -max(height, least) % stride + max(height, least) - height
    right = -max(width, least) % stride + max(width, least) - width
    if not bottom and not right:
        return chw
    return np.pad(chw, ((0, 0), (0, bottom), (0, right)), mode="reflect" if min(height, width) > 1 else "edge")

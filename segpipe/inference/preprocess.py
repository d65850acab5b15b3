"""From stored pixels to what a network was trained on: channels, intensity window, mean and deviation, padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from segpipe.errors import DataError


class Normalisation(BaseModel):
    """``((x - low) / (high - low) - mean) / std`` per channel: the window maps stored values to 0..1, then come mean and std."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

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

    def apply(self, image: np.ndarray) -> npt.NDArray[np.float32]:
        """(H, W, C) of any real dtype -> (C, H, W), float32, contiguous."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scale = 1.0 / ((high - low) * std)  # the two affine steps as one: x * scale + shift
        shift = -low * scale - mean / std
        chw = np.array(image.transpose(2, 0, 1), np.float32, order="C")  # always a copy: grey float32 would be a view
        chw *= scale[:, None, None]
        chw += shift[:, None, None]
        return chw


def fit_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Bring an image to the number of channels that a model wants, where that loses nothing.

    image: (H, W) or (H, W, C). Grey becomes three equal channels, three equal channels become grey, alpha is dropped;
    anything else is refused.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or 0 in image.shape:
        raise DataError("not an image", found=f"an array of shape {image.shape}", expected="height x width x channels")
    have = image.shape[2]
    if have == channels:
        return image
    if have == channels + 1 and channels in (1, 3):  # grey + alpha, RGB + alpha
        return image[:, :, :channels]
    if have == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if (
        have in (3, 4)
        and channels == 1
        and (image[:, :, 0] == image[:, :, 1]).all()
        and (image[:, :, 0] == image[:, :, 2]).all()
    ):
        return image[:, :, :1]
    raise DataError(
        "wrong number of channels", found=have, expected=channels,
        fix="give images of the kind that the model was trained on",
    )  # fmt: skip


def pad_to_multiple(chw: np.ndarray, stride: int, least: int = 0) -> np.ndarray:
    """(C, H, W) -> the same, mirrored at the bottom and the right to a multiple of `stride` (and at least `least`)."""
    height, width = chw.shape[1:]
    bottom = -max(height, least) % stride + max(height, least) - height
    right = -max(width, least) % stride + max(width, least) - width
    if not bottom and not right:
        return chw
    return np.pad(chw, ((0, 0), (0, bottom), (0, right)), mode="reflect" if min(height, width) > 1 else "edge")

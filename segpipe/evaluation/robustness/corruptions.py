"""Corruptions of images, as a worse microscope, camera or transmission causes them: noise, blur, JPEG, brightness, contrast, scale.

Each corruption takes an image (H, W, C) or a volume (D, H, W, C) of any dtype, and returns one of the same kind. Strengths are relative
to the window of intensities that the model was trained on, so that 8-bit, 16-bit and float images are corrupted equally. Intensities
outside of the window stay outside: a change is added to the image, and clipped only at the limits of the dtype.

numpy, scipy and OpenCV do the work instead of albumentations, the library for augmentation: that accepts neither volumes nor 16-bit
images, clips floats to 0..1, and takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.inference.preprocess import Normalisation
from segpipe.samples import Sample

Image = npt.NDArray[Any]
Window = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""The lowest intensity and the width of the window, (C,) each."""

SEVERITIES = ("light", "medium", "strong")


def noise(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Add Gaussian noise. strength: its standard deviation as a share of the window."""
    noise_values = rng.standard_normal(image.shape, np.float32) * (strength * window[1])
    return _to_dtype(image, image.astype(np.float32) + noise_values)


def blur(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Blur by a Gaussian along all spatial axes. strength: its standard deviation in pixels."""
    from scipy.ndimage import gaussian_filter

    axes = tuple(range(image.ndim - 1))
    return _to_dtype(image, gaussian_filter(image.astype(np.float32), strength, axes=axes, mode="mirror"))


def jpeg(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Compress as JPEG and decompress. strength: the quality, 1..100."""
    import cv2

    order = slice(None, None, -1 if image.shape[2] == 3 else 1)  # OpenCV expects BGR
    _, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[:, :, order]), [cv2.IMWRITE_JPEG_QUALITY, int(strength)]
    )
    decoded = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert decoded is not None, "OpenCV reads what it wrote"
    return np.ascontiguousarray(decoded.reshape(image.shape)[:, :, order])


def brightness(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Make the image brighter or darker, at random. strength: the change as a share of the window."""
    sign = 1 if rng.integers(2) else -1
    return _to_dtype(image, image.astype(np.float32) + sign * strength * window[1])


def contrast(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Reduce the differences from the mean of each channel. strength: the share by which they are reduced."""
    values = image.astype(np.float32)
    mean = values.mean(axis=tuple(range(image.ndim - 1)), dtype=np.float64).astype(np.float32)
    return _to_dtype(image, mean + (1 - strength) * (values - mean))


def downscale(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Reduce height and width by area interpolation; depth stays. strength: the new length as a share of the old one."""
    import cv2

    height, width = image.shape[-3:-1]
    size = (max(1, round(width * strength)), max(1, round(height * strength)))
    planes = np.moveaxis(image, -1, 0).reshape(-1, height, width)  # OpenCV cannot resize many channels at once
    reduced = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes])
    leading = (image.shape[-1], *image.shape[:-3])
    return np.ascontiguousarray(np.moveaxis(reduced.reshape(*leading, size[1], size[0]), 0, -1))


def _to_dtype(image: Image, values: npt.NDArray[np.float32]) -> Image:
    """Convert values to the dtype of an image."""
    if not np.issubdtype(image.dtype, np.integer):
        return values.astype(image.dtype)
    limits = np.iinfo(image.dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(image.dtype)


@dataclass(frozen=True)
class Corruption:
    """A way to corrupt an image.

    Attributes:
        function: (image, window, strength, random generator) -> image.
        strengths: one for each of `SEVERITIES`.
        scales: whether the image changes its size.
        only_8_bit: whether it applies only to grey and RGB images of 8 bits.
    """

    function: Callable[[Image, Window, float, np.random.Generator], Image]
    strengths: tuple[float, float, float]
    scales: bool = False
    only_8_bit: bool = False

    def applies_to(self, sample: Sample) -> bool:
        """Return whether such an image can be corrupted in this way."""
        image = sample.image
        return not self.only_8_bit or (image.ndim == 3 and image.dtype == np.uint8 and image.shape[2] in (1, 3))

    def apply(self, image: Image, normalisation: Normalisation, severity: str, seed: tuple[int, ...]) -> Image:
        """Corrupt an image.

        Args:
            image: (H, W, C) or (D, H, W, C).
            normalisation: its limits are the window that strengths are relative to.
            severity: one of `SEVERITIES`.
            seed: the same seed gives the same pixels.
        """
        low, high = (np.array(limits, np.float32) for limits in (normalisation.low, normalisation.high))
        strength = self.strengths[SEVERITIES.index(severity)]
        return self.function(image, (low, high - low), strength, np.random.Generator(np.random.PCG64(seed)))


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(noise, (0.03, 0.08, 0.16)),
    "blur": Corruption(blur, (1.0, 2.0, 4.0)),
    "jpeg": Corruption(jpeg, (50, 25, 10), only_8_bit=True),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3)),
    "contrast": Corruption(contrast, (0.25, 0.5, 0.75)),
    "scale": Corruption(downscale, (0.75, 0.5, 0.33), scales=True),
}
"""The corruptions by name."""


def resample_to_labels(class_ids: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Resample the class ids of an image that `downscale` made to the pixels of the original, by the nearest pixel.

    Args:
        class_ids: (h, w) or (D, h, w).
        shape: (H, W) or (D, H, W) of the original.
    """
    rows, columns = (
        np.minimum((np.arange(size) + 0.5) * reduced / size, reduced - 1).astype(np.intp)
        for size, reduced in zip(shape[-2:], class_ids.shape[-2:], strict=True)
    )
    return np.ascontiguousarray(class_ids[..., rows[:, None], columns])

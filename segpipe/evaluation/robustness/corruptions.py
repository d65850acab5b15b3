"""Images as a worse microscope, camera or wire would give them: noise, blur, JPEG, brightness, contrast, scale.

Each takes an image (H, W, C) or a volume (D, H, W, C) of any dtype, and gives the same kind back. Strengths are relative to the
window of intensities that the model was trained on, so that 8 bit, 16 bit and float images are spoilt alike. What lies outside
of the window stays outside: a change is added to the image, and cut off only where the dtype ends.

numpy, scipy and OpenCV do the work, and not the library that augments: it takes neither volumes nor 16 bit, cuts floats off at 0
and 1, and takes seconds to import.
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
"""The lowest intensity and the width of the window, of each channel."""

SEVERITIES = ("light", "medium", "strong")


def noise(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Gaussian noise of this standard deviation."""
    drawn = rng.standard_normal(image.shape, np.float32) * (strength * window[1])
    return _as(image, image.astype(np.float32) + drawn)


def blur(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """A Gaussian of this many pixels, along all axes of space."""
    from scipy.ndimage import gaussian_filter

    axes = tuple(range(image.ndim - 1))
    return _as(image, gaussian_filter(image.astype(np.float32), strength, axes=axes, mode="mirror"))


def jpeg(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Compressed to this quality (1..100) and back."""
    import cv2

    order = slice(None, None, -1 if image.shape[2] == 3 else 1)  # OpenCV wants blue first
    _, code = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, order]), [cv2.IMWRITE_JPEG_QUALITY, int(strength)])
    back = cv2.imdecode(code, cv2.IMREAD_UNCHANGED)
    assert back is not None, "OpenCV reads what it wrote"
    return np.ascontiguousarray(back.reshape(image.shape)[:, :, order])


def brightness(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Brighter or darker (by lot) by this share of the window."""
    sign = 1 if rng.integers(2) else -1
    return _as(image, image.astype(np.float32) + sign * strength * window[1])


def contrast(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Every difference from the image's mean, by channel, reduced by this share."""
    values = image.astype(np.float32)
    mean = values.mean(axis=tuple(range(image.ndim - 1)), dtype=np.float64).astype(np.float32)
    return _as(image, mean + (1 - strength) * (values - mean))


def downscale(image: Image, window: Window, strength: float, rng: np.random.Generator) -> Image:
    """Height and width this many times as long, by area: fewer pixels for the same scene. Depth stays."""
    import cv2

    height, width = image.shape[-3:-1]
    size = (max(1, round(width * strength)), max(1, round(height * strength)))
    planes = np.moveaxis(image, -1, 0).reshape(-1, height, width)  # OpenCV resizes few channels at once
    small = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes])
    leading = (image.shape[-1], *image.shape[:-3])
    return np.ascontiguousarray(np.moveaxis(small.reshape(*leading, size[1], size[0]), 0, -1))


def _as(image: Image, values: npt.NDArray[np.float32]) -> Image:
    if not np.issubdtype(image.dtype, np.integer):
        return values.astype(image.dtype)
    ends = np.iinfo(image.dtype)
    return np.clip(np.rint(values), ends.min, ends.max).astype(image.dtype)


@dataclass(frozen=True)
class Corruption:
    """A way to spoil an image, at three strengths, from light to strong. scales: the image changes its size."""

    spoil: Callable[[Image, Window, float, np.random.Generator], Image]
    strengths: tuple[float, float, float]
    scales: bool = False
    only_8_bit: bool = False

    def suits(self, sample: Sample) -> bool:
        """Whether this can happen to such an image: JPEG is for grey and coloured images of 8 bit."""
        image = sample.image
        return not self.only_8_bit or (image.ndim == 3 and image.dtype == np.uint8 and image.shape[2] in (1, 3))

    def apply(self, image: Image, normalisation: Normalisation, severity: str, seed: tuple[int, ...]) -> Image:
        """The image at one of `SEVERITIES`; the same seed gives the same pixels."""
        low, high = (np.array(ends, np.float32) for ends in (normalisation.low, normalisation.high))
        strength = self.strengths[SEVERITIES.index(severity)]
        return self.spoil(image, (low, high - low), strength, np.random.Generator(np.random.PCG64(seed)))


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(noise, (0.03, 0.08, 0.16)),
    "blur": Corruption(blur, (1.0, 2.0, 4.0)),
    "jpeg": Corruption(jpeg, (50, 25, 10), only_8_bit=True),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3)),
    "contrast": Corruption(contrast, (0.25, 0.5, 0.75)),
    "scale": Corruption(downscale, (0.75, 0.5, 0.33), scales=True),
}
"""By name."""


def resample_to_labels(class_ids: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Class ids of an image that `smaller` made, (H, W) or (D, H, W), on the pixels of the original: the nearest one each."""
    rows, columns = (
        np.minimum((np.arange(size) + 0.5) * small / size, small - 1).astype(np.intp)
        for size, small in zip(shape[-2:], class_ids.shape[-2:], strict=True)
    )
    return np.ascontiguousarray(class_ids[..., rows[:, None], columns])

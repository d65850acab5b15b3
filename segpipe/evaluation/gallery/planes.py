"""Volumes as pictures: three planes next to each other, one across each axis, where most of the labels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.samples import IGNORE, UNKNOWN

_EDGE = 156
"""Longest edge of a plane in pixels: three planes and the gaps are as wide as a picture of the gallery."""
_GAP_PIXELS = 6


@dataclass(frozen=True)
class Planes:
    """The planes of a volume (D, H, W), and the size of a voxel in the picture.

    Attributes:
        indices: of the plane across each axis.
        scale: pixels per voxel along each axis.
    """

    indices: tuple[int, int, int]
    scale: tuple[float, float, float]

    @classmethod
    def of(cls, masks: Sequence[npt.NDArray[np.uint8]], spacing: Sequence[float] | None = None) -> Planes:
        """Choose the fullest plane across each axis: the one with most voxels that are neither class 0 nor ignored.

        Args:
            masks: (D, H, W), class ids. The first mask that has such voxels decides; if none has, the planes are in the middle.
            spacing: size of a voxel in mm along each axis, so that proportions are right.
        """
        shape = masks[0].shape
        candidates = ((mask > 0) & (mask < UNKNOWN) for mask in masks)
        foreground = next((voxels for voxels in candidates if voxels.any()), np.zeros(shape, bool))
        counts = [foreground.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        depth, height, width = (int(n.argmax()) if n.any() else len(n) // 2 for n in counts)
        size = np.ones(3) if spacing is None else np.asarray(spacing, np.float64)
        scale = size * (_EDGE / float((size * shape).max()))
        return cls((depth, height, width), (float(scale[0]), float(scale[1]), float(scale[2])))

    def __call__(self, volume: np.ndarray, fill: float = 0) -> np.ndarray:
        """Draw the three planes as one picture, from left to right across D, H and W, by the nearest voxel.

        Args:
            volume: (D, H, W) or (D, H, W, C).
            fill: the value between and below the planes.

        Returns:
            (h, w) or (h, w, C), in the same dtype.
        """
        cuts = [self._plane(volume, axis) for axis in range(3)]
        rows = max(len(cut) for cut in cuts)
        out = np.full((rows, sum(c.shape[1] for c in cuts) + 2 * _GAP_PIXELS, *volume.shape[3:]), fill, volume.dtype)
        left = 0
        for cut in cuts:
            out[: len(cut), left : left + cut.shape[1]] = cut
            left += cut.shape[1] + _GAP_PIXELS
        return out

    def _plane(self, volume: np.ndarray, axis: int) -> np.ndarray:
        plane = np.take(volume, self.indices[axis], axis=axis)
        rows, columns = (
            ((np.arange(max(1, round(n * s))) + 0.5) / max(1, round(n * s)) * n).astype(np.intp)
            for n, s in zip(plane.shape[:2], (s for a, s in enumerate(self.scale) if a != axis), strict=True)
        )
        return np.asarray(
            plane[rows[:, None], columns][::-1]
        )  # flipped: NIfTI counts rows towards the head or the front


def flatten(
    image: np.ndarray,
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    spacing: Sequence[float] | None = None,
) -> tuple[np.ndarray, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw the same planes of a volume, its truth and a prediction.

    The planes are where most of the truth is, or of the prediction if the truth is empty. Pixels between the planes are `IGNORE`.

    Args:
        image: (D, H, W, C).
        truth: (D, H, W), class ids.
        prediction: (D, H, W), class ids.
        spacing: size of a voxel in mm along each axis.

    Returns:
        Image (h, w, C), truth (h, w) and prediction (h, w).
    """
    planes = Planes.of([truth, prediction], spacing)
    low = float(np.percentile(image, 0.5))
    return planes(image, low), planes(truth, IGNORE), planes(prediction)

"""Volumes as pictures: three planes side by side, one across each axis, where there is most to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.samples import IGNORE, UNKNOWN

_EDGE = 156
"""Longest edge of a plane in pixels: three of them and the gaps are as wide as a picture of the gallery."""
_GAP = 6


@dataclass(frozen=True)
class Planes:
    """Where a volume (D, H, W) is cut, and how large a voxel is drawn. places: index along each axis; scale: pixels a voxel."""

    places: tuple[int, int, int]
    scale: tuple[float, float, float]

    @classmethod
    def of(cls, masks: Sequence[npt.NDArray[np.uint8]], spacing: Sequence[float] | None = None) -> Planes:
        """Through the fullest slice along each axis: most voxels that are neither class 0 nor ignored, in the first of the masks
        (D, H, W), class ids, that has any; the middle where none has. spacing: mm a voxel by axis, so that proportions are
        right."""
        shape = masks[0].shape
        found = ((mask > 0) & (mask < UNKNOWN) for mask in masks)
        full = next((there for there in found if there.any()), np.zeros(shape, bool))
        counts = [full.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        depth, height, width = (int(n.argmax()) if n.any() else len(n) // 2 for n in counts)
        size = np.ones(3) if spacing is None else np.asarray(spacing, np.float64)
        each = size * (_EDGE / float((size * shape).max()))
        return cls((depth, height, width), (float(each[0]), float(each[1]), float(each[2])))

    def __call__(self, volume: np.ndarray, fill: float = 0) -> np.ndarray:
        """The three planes of (D, H, W) or (D, H, W, C), from left to right across D, H and W, as one picture (h, w) or
        (h, w, C) in the same dtype, each voxel the nearest; what lies between and below them is `fill`."""
        cuts = [self._plane(volume, axis) for axis in range(3)]
        rows = max(len(cut) for cut in cuts)
        out = np.full((rows, sum(c.shape[1] for c in cuts) + 2 * _GAP, *volume.shape[3:]), fill, volume.dtype)
        left = 0
        for cut in cuts:
            out[: len(cut), left : left + cut.shape[1]] = cut
            left += cut.shape[1] + _GAP
        return out

    def _plane(self, volume: np.ndarray, axis: int) -> np.ndarray:
        plane = np.take(volume, self.places[axis], axis=axis)
        rows, columns = (
            ((np.arange(max(1, round(n * s))) + 0.5) / max(1, round(n * s)) * n).astype(np.intp)
            for n, s in zip(plane.shape[:2], (s for a, s in enumerate(self.scale) if a != axis), strict=True)
        )
        return np.asarray(plane[rows[:, None], columns][::-1])  # upwards, as NIfTI counts towards the head or the front


def flatten(
    image: np.ndarray,
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    spacing: Sequence[float] | None = None,
) -> tuple[np.ndarray, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The same planes of a volume (D, H, W, C), its truth and a prediction, as pictures; between the planes nothing counts.

    They lie where most of the truth is; in a volume without any, where most was predicted.
    """
    planes = Planes.of([truth, prediction], spacing)
    low = float(np.percentile(image, 0.5))
    return planes(image, low), planes(truth, IGNORE), planes(prediction)

"""Avoid flicker: an exponential moving average of the class probabilities over frames."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float32]


class Smoother:
    """Averages probabilities over frames: ``p[t] = s p[t-1] + (1 - s) q[t]``, from ``p[0] = q[0]``.

    The average starts again if the size of the frames changes.

    Args:
        smoothing: The weight s of the past, 0 to below 1; 0 returns each frame's own probabilities.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self._mean: Probabilities | None = None

    def __call__(self, probabilities: Probabilities) -> Probabilities:
        """Add a frame to the average.

        Args:
            probabilities: q[t], the network's probabilities for a frame, (n_classes, H, W), float32, 0..1.

        Returns:
            p[t], the average, (n_classes, H, W); the next call overwrites it.
        """
        if self._mean is None or self._mean.shape != probabilities.shape:
            self._mean = probabilities.copy()
        else:
            shape_2d = (len(probabilities), -1)  # OpenCV accumulates in place, in arrays of two axes
            cv2.accumulateWeighted(probabilities.reshape(shape_2d), self._mean.reshape(shape_2d), 1 - self.smoothing)
        return self._mean


def half_life(smoothing: float) -> float:
    """Return the number of frames after which the weight of a frame has halved, log(1/2) / log(s); 0 without smoothing."""
    return math.log(0.5) / math.log(smoothing) if smoothing else 0.0

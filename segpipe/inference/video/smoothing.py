"""Answers that do not flicker: the exponential moving average of the class probabilities, frame after frame."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float32]


class Smoother:
    """``p[t] = s p[t-1] + (1 - s) q[t]``, from ``p[0] = q[0]``; begins anew where the size of the frames changes.

    q: what the network says of a frame, (n_classes, H, W), float32, 0..1. s: 0 keeps each frame's own answer.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self._mean: Probabilities | None = None

    def __call__(self, probabilities: Probabilities) -> Probabilities:
        """The average up to this frame, (n_classes, H, W): valid until the next call."""
        if self._mean is None or self._mean.shape != probabilities.shape:
            self._mean = probabilities.copy()
        else:
            plane = (len(probabilities), -1)  # in place, and for OpenCV in two axes
            cv2.accumulateWeighted(probabilities.reshape(plane), self._mean.reshape(plane), 1 - self.smoothing)
        return self._mean


def half_life(smoothing: float) -> float:
    """After how many frames an answer counts half as much: log 1/2 / log s; 0 without smoothing."""
    return math.log(0.5) / math.log(smoothing) if smoothing else 0.0

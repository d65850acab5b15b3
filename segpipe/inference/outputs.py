"""The meaning of a network's output channels: a score per class and, for some networks, the distance to the border of an instance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from segpipe.inference.engines.engine import Batch, softmax
from segpipe.labels import Labels, OverlappingLabelling

Planes = Iterable[npt.NDArray[np.float32]]
"""An array (channels, ...), or its channels one by one."""

_EPSILON = np.float32(1e-12)
"""Probabilities are at least this before their logarithm is taken."""


@dataclass(frozen=True)
class Outputs:
    """The output channels of a network whose classes are exclusive: each pixel has one class.

    Args:
        classes: Number of classes. The first channels are their scores.
        distance: True if one more channel gives the distance to the border of an instance, relative to the largest distance in it: 0
            outside of instances and at their borders, 1 at the deepest pixel.
    """

    classes: int
    distance: bool = False

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.classes + self.distance

    def values(self, logits: Batch, axis: int = 1) -> Batch:
        """Convert logits to values in 0..1.

        Args:
            logits: float32, with the channels along `axis`.
            axis: The axis of the channels.

        Returns:
            An array of the same shape: class probabilities, which sum to 1, then the distance if there is one.
        """
        if not self.distance:
            return softmax(logits, axis)
        classes, distance = np.split(logits, [self.classes], axis)
        return np.concatenate([softmax(classes, axis), sigmoid(distance)], axis)

    def logits(self, values: Batch) -> Batch:
        """Invert `values`, for channels along axis 1."""
        logits = np.log(np.maximum(values, _EPSILON))
        if self.distance:
            logits[:, -1] -= np.log(np.maximum(1 - values[:, -1], _EPSILON))
        return logits

    def split(self, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Split values (channels, ...) into class probabilities (classes, ...) and the distance (...), None if there is none."""
        return values[: self.classes], values[self.classes] if self.distance else None

    def labels_of_logits(self, logits: Planes) -> Labels:
        """Return the label of each pixel: the most probable class.

        Args:
            logits: (channels, ...), float32.

        Returns:
            Class ids (...), uint8.
        """
        return argmax(islice(logits, self.classes))

    def labels(self, values: Planes) -> Labels:
        """Return the label of each pixel, like `labels_of_logits`, from values (channels, ...) in 0..1."""
        return argmax(islice(values, self.classes))


@dataclass(frozen=True)
class OverlappingOutputs(Outputs):
    """The output channels of a network whose classes overlap: each pixel has any number of classes.

    A pixel has a class if its probability is above 0.5. The background, class 0, has a channel too, but it is ignored: the background
    is where no other class is.
    """

    def values(self, logits: Batch, axis: int = 1) -> Batch:
        """Convert logits to values in 0..1. See `Outputs.values`; probabilities do not sum to 1."""
        return sigmoid(logits)

    def logits(self, values: Batch) -> Batch:
        """Invert `values`."""
        logits = np.log(np.maximum(values, _EPSILON))
        logits -= np.log(np.maximum(1 - values, _EPSILON))
        return logits

    def labels_of_logits(self, logits: Planes) -> Labels:
        """Return the label of each pixel: the set of its classes (`segpipe.labels.OverlappingLabelling`).

        Args:
            logits: (channels, ...), float32.

        Returns:
            Labels (...), uint8.
        """
        return OverlappingLabelling(self.classes).pack(plane > 0 for plane in islice(logits, self.classes))

    def labels(self, values: Planes) -> Labels:
        """Return the label of each pixel, like `labels_of_logits`, from values (channels, ...) in 0..1."""
        return OverlappingLabelling(self.classes).pack(plane > 0.5 for plane in islice(values, self.classes))


def sigmoid(logits: Batch) -> Batch:
    """Convert independent logits to probabilities, without overflow."""
    return np.multiply(0.5, 1 + np.tanh(logits / 2), dtype=np.float32)


def argmax(scores: Planes) -> Labels:
    """Return the index of the largest score of each pixel; the first one if several are equal.

    With one comparison per class, this is several times faster than numpy's argmax over axis 0.

    Args:
        scores: (n_classes, ...), float32.

    Returns:
        Class ids (...), uint8.
    """
    planes = iter(scores)
    best = next(planes).copy()
    ids = np.zeros(best.shape, np.uint8)
    for index, plane in enumerate(planes, start=1):
        ids[plane > best] = index
        np.maximum(best, plane, out=best)
    return ids

"""What the channels of a network say: a score for each class and, of a network that learned it, how deep in an object a pixel lies."""

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

_TINY = np.float32(1e-12)


@dataclass(frozen=True)
class Outputs:
    """The channels of a network: those of `classes`, then one more where it gives the `distance`."""

    classes: int
    distance: bool = False
    """Whether there is a channel for the depth in an object: 0 outside of objects and at their borders, 1 at the deepest pixel."""

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.classes + self.distance

    def values(self, logits: Batch, axis: int = 1) -> Batch:
        """Logits, float32, channels along `axis` -> probabilities of the classes, which sum to 1, and the depth, 0..1."""
        if not self.distance:
            return softmax(logits, axis)
        classes, depth = np.split(logits, [self.classes], axis)
        return np.concatenate([softmax(classes, axis), sigmoid(depth)], axis)

    def logits(self, values: Batch) -> Batch:
        """What `values` makes these values of, channels along axis 1."""
        found = np.log(np.maximum(values, _TINY))
        if self.distance:
            found[:, -1] -= np.log(np.maximum(1 - values[:, -1], _TINY))
        return found

    def split(self, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Values (channels, ...) -> probabilities (classes, ...), and the depth (...), None where there is none."""
        return values[: self.classes], values[self.classes] if self.distance else None

    def labels_of_logits(self, logits: Planes) -> Labels:
        """Logits (channels, ...) -> labels (...), uint8: the likeliest class of each pixel."""
        return argmax(islice(logits, self.classes))

    def labels(self, values: Planes) -> Labels:
        """As `labels_of_logits`, of values (channels, ...)."""
        return argmax(islice(values, self.classes))


@dataclass(frozen=True)
class OverlappingOutputs(Outputs):
    """Of a network that says of each class by itself whether it is there: its classes overlap, their probabilities sum to anything.

    A class is there where its probability is above a half. What is said of the background, class 0, is learned and not asked:
    it is where nothing else is.
    """

    def values(self, logits: Batch, axis: int = 1) -> Batch:
        """Logits, float32 -> probabilities, and the depth."""
        return sigmoid(logits)

    def logits(self, values: Batch) -> Batch:
        """What `values` makes these values of."""
        found = np.log(np.maximum(values, _TINY))
        found -= np.log(np.maximum(1 - values, _TINY))
        return found

    def labels_of_logits(self, logits: Planes) -> Labels:
        """Logits (channels, ...) -> labels (...), uint8: the set of the classes that are there."""
        return OverlappingLabelling(self.classes).pack(plane > 0 for plane in islice(logits, self.classes))

    def labels(self, values: Planes) -> Labels:
        """As `labels_of_logits`, of values (channels, ...)."""
        return OverlappingLabelling(self.classes).pack(plane > 0.5 for plane in islice(values, self.classes))


def sigmoid(logits: Batch) -> Batch:
    """Probabilities, one by one, without the overflow of exp."""
    return np.multiply(0.5, 1 + np.tanh(logits / 2), dtype=np.float32)


def argmax(scores: Planes) -> Labels:
    """(n_classes, ...) -> (...), uint8. One comparison a class: several times faster than numpy's argmax over axis 0."""
    planes = iter(scores)
    best = next(planes).copy()
    ids = np.zeros(best.shape, np.uint8)
    for index, own in enumerate(planes, start=1):
        ids[own > best] = index
        np.maximum(best, own, out=best)
    return ids

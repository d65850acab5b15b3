"""What the channels of a network say: a score for each class and, of a network that learned it, how deep in an object a pixel lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.inference.engines import Batch, softmax

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
        return np.concatenate([softmax(classes, axis), 0.5 * (1 + np.tanh(depth / 2))], axis)  # no overflow, as of exp

    def logits(self, values: Batch) -> Batch:
        """What `values` makes these values of, channels along axis 1."""
        found = np.log(np.maximum(values, _TINY))
        if self.distance:
            found[:, -1] -= np.log(np.maximum(1 - values[:, -1], _TINY))
        return found

    def split(self, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Values (channels, ...) -> probabilities (classes, ...), and the depth (...), None where there is none."""
        return values[: self.classes], values[self.classes] if self.distance else None

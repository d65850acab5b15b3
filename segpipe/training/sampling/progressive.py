"""Progressive training: the first steps see smaller crops, which are several times cheaper, so that a budget buys more steps.

With `crops`, a crop shows a smaller part of the image; with `scale`, the same part at half the resolution. Whether a step is one of
the first depends on its number alone, so learning rates, running averages and checkpoints are not affected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segpipe.training.sampling.crops import Samples


@dataclass(frozen=True)
class Progressive:
    """Samples that are small up to a position, and full-sized from there on."""

    small: Samples
    full: Samples
    first_full: int
    """The first position with a full-sized sample."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Any]:
        return (self.small if position < self.first_full else self.full)[position]

"""Training samples that are small in the first steps (`segpipe.training.planning.progressive` chooses how small)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segpipe.training.sampling.crops import Samples


@dataclass(frozen=True)
class Progressive:
    """Samples that are small up to a position, and full from there on."""

    small: Samples
    full: Samples
    until: int

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Any]:
        return (self.small if position < self.until else self.full)[position]

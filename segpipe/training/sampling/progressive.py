"""Progressive training: the first steps see smaller crops, which are several times cheaper, so that a budget buys more steps.

With `crops`, a crop shows a smaller part of the image; with `scale`, the same part at half the resolution. Whether a step is one of
the first depends on its number alone, so learning rates, running averages and checkpoints are not affected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError
from segpipe.training.plan import FirstCrops

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segpipe.training.planning.plan_draft import PlanDraft
    from segpipe.training.sampling.crops import Samples

_FACTOR = 2
_MIN_DEEPEST_VOXELS = 8
"""Voxels of the deepest level over which a network for volumes can still normalise."""


def choose_first_crops(draft: PlanDraft, edges: tuple[int, ...], multiples: tuple[int, ...]) -> FirstCrops | None:
    """Choose the crops of the first steps: half of the full ones.

    Args:
        draft: the plan so far; the reason is recorded in it.
        edges: size of a full crop, by axis.
        multiples: by axis, the network accepts multiples of this.

    Returns:
        The crops, with a placeholder of 0 for the number of steps; None if progressive training is off or crops cannot be smaller.

    Raises:
        ConfigError: The family is a detector.
    """
    mode, share = draft.settings.progressive, draft.settings.progressive_share
    if mode == "off":
        return None
    if draft.family.kind != "network":
        raise ConfigError(
            f"{draft.family.name} expects instances of one size and cannot start with smaller crops",
            where="train.progressive",
            found=mode,
            fix="set it to off for this candidate: `train: {progressive: off}` under it",
        )
    half = tuple(max(m, edge // _FACTOR // m * m) for edge, m in zip(edges, multiples, strict=True))
    deepest_voxels = math.prod(edge // m for edge, m in zip(half, multiples, strict=True))
    if half == edges or (len(edges) == 3 and deepest_voxels < _MIN_DEEPEST_VOXELS):
        draft.explain("progressive", "no: crops are already as small as this network accepts")
        return None
    size = " x ".join(map(str, half))
    view = "at half the resolution" if mode == "scale" else "of the same images"
    draft.explain("progressive", f"the first {share:.0%} of the steps see crops of {size}, {view}")
    return FirstCrops(steps=0, edges=half, shrink=_FACTOR if mode == "scale" else 1)


@dataclass(frozen=True)
class Progressive:
    """Samples that are small up to a position, and full-sized from there on."""

    small: Samples
    full: Samples
    first_full: int
    """The first position with a full-sized sample."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Any]:
        return (self.small if position < self.first_full else self.full)[position]

"""Progressive training: the first steps on smaller crops, which are several times cheaper, so that a budget buys more steps.

`crops` shows less of an image, as it is; `scale` shows as much at half the resolution. Which steps these are is a matter of the step
alone, so rates, running averages and checkpoints know nothing of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from segpipe.errors import ConfigError
from segpipe.training.plan import FirstCrops

if TYPE_CHECKING:
    from segpipe.config import TrainParams
    from segpipe.models.registry import Family

_FACTOR = 2
_LEAST_DEEPEST = 8
"""Voxels of the deepest level that a network for volumes can still normalise over."""


def choose_first_crops(
    wanted: TrainParams, of: Family, edges: tuple[int, ...], multiples: tuple[int, ...], reasons: dict[str, str]
) -> FirstCrops | None:
    """The crops of the first steps: half of `edges`, in `multiples` of what the network halves evenly; None where that is no less, or
    nobody asks. Their number of steps is a placeholder of 0 until steps have been timed.
    """
    if wanted.progressive == "off":
        return None
    if of.kind != "network":
        raise ConfigError(
            f"{of.name} expects objects of one size, and can't begin with smaller crops",
            where="train.progressive",
            found=wanted.progressive,
            fix="set it to off for this candidate: `train: {progressive: off}` under it",
        )
    half = tuple(max(m, e // _FACTOR // m * m) for e, m in zip(edges, multiples, strict=True))
    deepest = math.prod(h // m for h, m in zip(half, multiples, strict=True))
    size = " x ".join(map(str, half))
    if half == edges or (len(edges) == 3 and deepest < _LEAST_DEEPEST):
        reasons["progressive"] = "no: crops are as small as this network takes them"
        return None
    how = "at half the resolution" if wanted.progressive == "scale" else "of the same images"
    reasons["progressive"] = f"the first {wanted.progressive_share:.0%} of the steps see crops of {size}, {how}"
    return FirstCrops(steps=0, edges=half, shrink=_FACTOR if wanted.progressive == "scale" else 1)

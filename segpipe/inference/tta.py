"""Test-time augmentation: the mean of what a network says of an image and of its mirror images."""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np

from segpipe.inference.engines import Batch, Engine
from segpipe.inference.outputs import Outputs

TTA = Literal["none", "mirror", "flips", "d4"]


def symmetries(tta: TTA, axes: int) -> list[tuple[bool, tuple[int, ...]]]:
    """(whether the last two axes change places, the axes that are then turned round), the image as it is first.

    axes: 2 for images, 3 for volumes; counted from the end, as -1.
    """
    turned = {"none": 0, "mirror": 1, "flips": axes, "d4": axes}[tta]
    flips = [
        tuple(-1 - axis for axis, flipped in enumerate(chosen) if flipped)
        for chosen in product((False, True), repeat=turned)
    ]
    return [(swapped, flip) for swapped in ((False, True) if tta == "d4" else (False,)) for flip in flips]


def averaged(engine: Engine, tta: TTA, batch: Batch, outputs: Outputs) -> Batch:
    """Scores of a batch (N, C, H, W) or (N, C, D, H, W), float32, as an engine gives them: logits (N, channels, ...), float32.

    With symmetries, the logits of the mean of the values (`Outputs.values`), one call of the engine for each.
    """
    ways = symmetries(tta, batch.ndim - 2)
    if len(ways) == 1:
        return engine(batch)
    total: Batch | None = None
    for swapped, flip in ways:
        turned = np.flip(batch.swapaxes(-1, -2) if swapped else batch, flip)
        p = np.flip(outputs.values(engine(np.ascontiguousarray(turned))), flip)
        p = p.swapaxes(-1, -2) if swapped else p
        total = p if total is None else total + p
    assert total is not None
    return outputs.logits(total / np.float32(len(ways)))

"""Test-time augmentation: the mean of what a network says of an image and of its mirror images."""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np

from segpipe.inference.engines import Batch, Engine, softmax

TTA = Literal["none", "mirror", "flips", "d4"]
_TINY = np.float32(1e-12)


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


def averaged(engine: Engine, tta: TTA, batch: Batch) -> Batch:
    """Scores of a batch (N, C, H, W) or (N, C, D, H, W), float32, as an engine gives them: logits (N, n_classes, ...), float32.

    With symmetries, the logarithm of the mean of the probabilities, one call of the engine for each: softmax makes that mean of
    it again.
    """
    ways = symmetries(tta, batch.ndim - 2)
    if len(ways) == 1:
        return engine(batch)
    total: Batch | None = None
    for swapped, flip in ways:
        turned = np.flip(batch.swapaxes(-1, -2) if swapped else batch, flip)
        p = np.flip(softmax(engine(np.ascontiguousarray(turned)), 1), flip)
        p = p.swapaxes(-1, -2) if swapped else p
        total = p if total is None else total + p
    assert total is not None
    return np.log(np.maximum(total / np.float32(len(ways)), _TINY))

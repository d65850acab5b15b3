"""Test-time augmentation: the mean of what a network says of an image, of its mirror images, and of it at other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np

from segpipe.inference.engines.engine import Batch, Engine
from segpipe.inference.outputs import Outputs

TTA = Literal["none", "mirror", "flips", "d4", "multi_scale"]

_SCALES: dict[TTA, tuple[float, ...]] = {"multi_scale": (0.75, 1.0, 1.25)}


def symmetries(tta: TTA, axes: int) -> list[tuple[bool, tuple[int, ...]]]:
    """(whether the last two axes change places, the axes that are then turned round), the image as it is first.

    axes: 2 for images, 3 for volumes; counted from the end, as -1.
    """
    turned = {"none": 0, "mirror": 1, "flips": axes, "d4": axes, "multi_scale": 1}[tta]
    flips = [
        tuple(-1 - axis for axis, flipped in enumerate(chosen) if flipped)
        for chosen in product((False, True), repeat=turned)
    ]
    return [(swapped, flip) for swapped in ((False, True) if tta == "d4" else (False,)) for flip in flips]


def relative_cost(tta: TTA, axes: int) -> float:
    """What an image costs, in runs of the network over it at its own size."""
    return len(symmetries(tta, axes)) * sum(scale**axes for scale in _SCALES.get(tta, (1.0,)))


def run_averaged(engine: Engine, tta: TTA, batch: Batch, outputs: Outputs, stride: int) -> Batch:
    """Scores of a batch (N, C, H, W) or (N, C, D, H, W), float32, as an engine gives them: logits (N, channels, ...), float32.

    With symmetries or scales, the logits of the mean of the values (`Outputs.values`), one call of the engine for each. At another
    scale, which only images have, height and width are the nearest multiples of `stride`.
    """
    if tta == "none":
        return engine(batch)
    size = batch.shape[2:]
    total, count = np.zeros((), np.float32), 0
    for scale in _SCALES.get(tta, (1.0,)):
        own = batch if scale == 1 else _resized(batch, [max(1, round(edge * scale / stride)) * stride for edge in size])
        for swapped, flip in symmetries(tta, batch.ndim - 2):
            turned = np.flip(own.swapaxes(-1, -2) if swapped else own, flip)
            p = np.flip(outputs.values(engine(np.ascontiguousarray(turned))), flip)
            p = p.swapaxes(-1, -2) if swapped else p
            total, count = total + (p if p.shape[2:] == size else _resized(p, size)), count + 1
    return outputs.logits(total / np.float32(count))


def _resized(batch: Batch, size: Sequence[int]) -> Batch:
    """(N, C, H, W) -> (N, C, *size), linear between the centres of pixels."""
    import cv2

    out = np.empty((*batch.shape[:2], *size), np.float32)
    for own, resized in zip(batch, out, strict=True):
        for plane, target in zip(own, resized, strict=True):
            cv2.resize(np.ascontiguousarray(plane), (size[1], size[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return out

"""Test-time augmentation: average the predictions for an image, its mirror images, and the image at other scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np

from segpipe.inference.engines.engine import Batch, Engine
from segpipe.inference.outputs import Outputs

TTA = Literal["none", "mirror", "flips", "d4", "multi_scale"]
"""none: the image as it is; mirror: and mirrored left to right; flips: mirrored along all axes; d4: all symmetries of a square;
multi_scale: mirrored left to right, at three scales."""

_SCALES: dict[TTA, tuple[float, ...]] = {"multi_scale": (0.75, 1.0, 1.25)}


def symmetries(tta: TTA, dims: int) -> list[tuple[bool, tuple[int, ...]]]:
    """Return the symmetries that are averaged, the identity first.

    Args:
        tta: The kind of augmentation.
        dims: 2 for images, 3 for volumes.

    Returns:
        For each symmetry, whether the last two axes are swapped, and the axes that are then flipped, counted from the end (-1 is the
        last).
    """
    flipped_axes = {"none": 0, "mirror": 1, "flips": dims, "d4": dims, "multi_scale": 1}[tta]
    flips = [
        tuple(-1 - axis for axis, flipped in enumerate(choice) if flipped)
        for choice in product((False, True), repeat=flipped_axes)
    ]
    return [(swapped, flip) for swapped in ((False, True) if tta == "d4" else (False,)) for flip in flips]


def relative_cost(tta: TTA, dims: int) -> float:
    """Return the cost of a prediction, relative to one run of the network on the image at its own size.

    Args:
        tta: The kind of augmentation.
        dims: 2 for images, 3 for volumes.
    """
    return len(symmetries(tta, dims)) * sum(scale**dims for scale in _SCALES.get(tta, (1.0,)))


def run_averaged(engine: Engine, tta: TTA, batch: Batch, outputs: Outputs, stride: int) -> Batch:
    """Run an engine with test-time augmentation: one call for each symmetry and scale.

    Args:
        engine: The engine.
        tta: The kind of augmentation.
        batch: (N, C, H, W) or (N, C, D, H, W), float32.
        outputs: The meaning of the engine's channels.
        stride: At other scales, which are for images only, the scaled image is padded by reflection to multiples of this.

    Returns:
        Logits (N, channels, ...), float32: those of the engine for "none", otherwise the logits of the averaged values
        (`Outputs.values`).
    """
    if tta == "none":
        return engine(batch)
    size = batch.shape[2:]
    total, count = np.zeros((), np.float32), 0
    for scale in _SCALES.get(tta, (1.0,)):
        scaled_size = [max(1, round(edge * scale)) for edge in size]
        scaled = batch if scale == 1 else _padded(_resized(batch, scaled_size), stride)
        for swapped, flip in symmetries(tta, batch.ndim - 2):
            augmented = np.flip(scaled.swapaxes(-1, -2) if swapped else scaled, flip)
            values = np.flip(outputs.values(engine(np.ascontiguousarray(augmented))), flip)
            values = values.swapaxes(-1, -2) if swapped else values
            values = values if scale == 1 else values[:, :, : scaled_size[0], : scaled_size[1]]
            total, count = total + (values if values.shape[2:] == size else _resized(values, size)), count + 1
    return outputs.logits(total / np.float32(count))


def _padded(batch: Batch, stride: int) -> Batch:
    """Pad images (N, C, H, W) at the bottom and on the right to multiples of the stride."""
    height, width = batch.shape[2:]
    padding = ((0, 0), (0, 0), (0, -height % stride), (0, -width % stride))
    return (
        np.pad(batch, padding, mode="reflect" if min(height, width) > 1 else "edge")
        if any(map(max, padding))
        else batch
    )


def _resized(batch: Batch, size: Sequence[int]) -> Batch:
    """Resize images (N, C, H, W) to (N, C, *size), by bilinear interpolation between pixel centres."""
    import cv2

    out = np.empty((*batch.shape[:2], *size), np.float32)
    for image, resized in zip(batch, out, strict=True):
        for plane, target in zip(image, resized, strict=True):
            cv2.resize(np.ascontiguousarray(plane), (size[1], size[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return out

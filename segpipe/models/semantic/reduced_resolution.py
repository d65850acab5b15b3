"""Run networks on downsampled images: cheaper, but fine details are lost."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ShrinkFactor = Literal[1, 2, 4]


def reduce_resolution(network: torch.nn.Module, factor: ShrinkFactor) -> torch.nn.Module:
    """Make a network downsample its input and upsample its logits.

    The image is averaged over blocks of `factor` x `factor` pixels, and the logits are upsampled to the image's size by bilinear
    interpolation between pixel centres. If the network returns several levels (deep supervision), only the finest is upsampled.

    Args:
        network: Maps images (N, C, H, W) to logits (N, n_classes, H, W). It is changed in place; names and weights stay.
        factor: Downsampling factor along each axis. H and W must then be multiples of `factor` times the network's stride.

    Returns:
        The same network.
    """
    if factor == 1:
        return network

    class ReducedResolution(type(network)):  # type: ignore[misc]
        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
            outputs = super().forward(F.avg_pool2d(images, factor))
            logits, *levels = outputs if isinstance(outputs, tuple) else (outputs,)
            logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
            return (logits, *levels) if levels else logits

    network.__class__ = ReducedResolution
    return network

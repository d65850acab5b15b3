"""Networks that look at images smaller than they are: cheaper, and blind to what is finer."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Shrink = Literal[1, 2, 4]
"""Pixels of an image, along each axis, that become one for the network."""


def reduce_resolution(network: torch.nn.Module, by: Shrink) -> torch.nn.Module:
    """The network on the means of `by` x `by` pixels, its logits drawn back to the image's size, linearly between the centres of pixels.

    Changed in place; names and weights stay. H and W are then multiples of `by` times what they were. Of a network that answers on
    several levels, the finest is drawn back.
    """
    if by == 1:
        return network

    class Shrunk(type(network)):  # type: ignore[misc]
        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
            said = super().forward(F.avg_pool2d(images, by))
            logits, *levels = said if isinstance(said, tuple) else (said,)
            logits = F.interpolate(logits, scale_factor=by, mode="bilinear", align_corners=False)
            return (logits, *levels) if levels else logits

    network.__class__ = Shrunk
    return network

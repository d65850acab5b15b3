"""Cross entropy near the borders between classes, which are found from the labels on the device that trains."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segpipe.config.losses import BoundaryTerm
from segpipe.samples import IGNORE
from segpipe.training.losses.pixels import Pixels

_MAX_POOL: dict[int, Callable[..., Tensor]] = {2: F.max_pool2d, 3: F.max_pool3d}


def boundary(pixels: Pixels, options: BoundaryTerm) -> Tensor:
    """Compute the mean over pixels of -log p, weighted by class and by ``exp(-d^2 / (2 sigma^2))``; 0 if the labels have no border.

    This is the weight map of Ronneberger, Fischer, Brox 2015 (arXiv:1505.04597) as a separate term, with one distance d: in steps
    to any of the 8 (26) neighbours, 0 on the border's own pixels.
    """
    near = border_weights(pixels.labels, options.sigma).reshape(-1)
    return pixels.weighted_mean(pixels.nll, pixels.weight * near)


@torch.no_grad()
def border_weights(labels: Tensor, sigma: float) -> Tensor:
    """Compute the weight of each pixel by its distance from the nearest border.

    A border pixel has a pixel of another class among its neighbours; ignored pixels form no border.

    Args:
        labels: (N, H, W) or (N, D, H, W), class ids and `IGNORE`.
        sigma: the width of the bell curve in pixels.

    Returns:
        Float32 of the same shape: 1 on borders, 0 from 3 sigma on.
    """
    ids = labels[:, None].float()
    counted = ids != IGNORE
    largest = _dilate(torch.where(counted, ids, -torch.inf))
    smallest = -_dilate(torch.where(counted, -ids, -torch.inf))
    reached = ((largest != smallest) & counted).float()
    weights = reached.clone()
    for distance in range(1, math.ceil(3 * sigma)):
        grown = _dilate(reached)
        weights += (grown - reached) * math.exp(-(distance**2) / (2 * sigma**2))
        reached = grown
    return weights[:, 0]


def _dilate(values: Tensor) -> Tensor:
    """Return the largest value among each pixel and its neighbours. values: (N, 1, ...)."""
    return _MAX_POOL[values.ndim - 2](values, kernel_size=3, stride=1, padding=1)

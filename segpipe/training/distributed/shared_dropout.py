"""Dropout and stochastic depth if several processes train: each image gets the noise that a single process would draw for it.

All processes draw from the same seed for the images of all of them, and each uses the rows of its own images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, Dropout1d, Dropout2d, Dropout3d

from segpipe.ops.swap import swap_class
from segpipe.training.distributed.process_group import rank, world_size

_DROPOUTS = Dropout, Dropout1d, Dropout2d, Dropout3d
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def share_dropout(network: torch.nn.Module) -> Callable[[int], None]:
    """Make the dropout layers of a network draw noise for the images of all processes.

    In a single process, nothing changes.

    Args:
        network: the network; its modules change their class, but keep names and weights.

    Returns:
        ``announce(images)``, which must be called before each forward pass with the number of images of all processes together.
    """
    if world_size() == 1:
        return lambda _: None
    from timm.layers import DropPath
    from torchvision.ops import StochasticDepth

    layers: list[Any] = [m for m in network.modules() if isinstance(m, (*_DROPOUTS, DropPath, StochasticDepth))]
    for layer in layers:
        swap_class(layer, _with_shared_noise(type(layer)))  # type: ignore[arg-type]  # types are hashable

    def announce(images: int) -> None:
        for layer in layers:
            layer.images = images

    return announce


def images_on_all_ranks(batch: int, parts: int, index: int) -> int:
    """Count the images of one part of a batch in all processes.

    Args:
        batch: images per batch, as `batches` deals them out to processes.
        parts: parts in which each process computes its share, as `split_batch` splits them.
        index: the part, from 0.
    """
    shares = (len(range(number, batch, world_size())) for number in range(world_size()))
    return sum(share // parts + (index < share % parts) for share in shares)


@cache
def _with_shared_noise(layer_class: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """Return a subclass of a layer that multiplies by noise, with the noise drawn for the images of all processes."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            return layer_class.forward(self, x)
        noise = layer_class.forward(self, _ones(x, self.images, _noise_axes(layer_class)))
        return x * noise[rank() :: world_size()]

    return type(layer_class.__name__, (layer_class,), {"forward": forward})


def _noise_axes(layer_class: type[torch.nn.Module]) -> int | None:
    """Return along how many axes the noise varies: 1 (images), 2 (channels of images) or None (all)."""
    if not issubclass(layer_class, _DROPOUTS):
        return 1
    return None if issubclass(layer_class, Dropout) else 2


def _ones(x: Tensor, images: int, axes: int | None) -> Tensor:
    """Return ones for this many images, in the memory format of x, because draws follow the order of memory."""
    varying = x.shape[1:axes]
    ones = x.new_ones((images, *varying, *[1] * (x.ndim - 1 - len(varying))))
    layout = _CHANNELS_LAST.get(x.ndim, torch.contiguous_format)
    return ones.contiguous(memory_format=layout) if x.is_contiguous(memory_format=layout) else ones

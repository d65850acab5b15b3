"""Dropout and stochastic depth where several processes train: each image meets the noise that one process would draw for it.

All processes draw from the same seed for the images of all of them, and each takes the rows of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, Dropout1d, Dropout2d, Dropout3d

from segpipe.training.distributed.process_group import rank, world_size

_DROPOUTS = Dropout, Dropout1d, Dropout2d, Dropout3d
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def share_dropout(network: torch.nn.Module) -> Callable[[int], None]:
    """``announce(images)``: tells the network how many images all processes together will show it next. Classes of its modules change,
    names and weights stay. In a single process, nothing changes."""
    if world_size() == 1:
        return lambda _: None
    from timm.layers import DropPath
    from torchvision.ops import StochasticDepth

    found: list[Any] = [m for m in network.modules() if isinstance(m, (*_DROPOUTS, DropPath, StochasticDepth))]
    for module in found:
        module.__class__ = _shared(type(module))  # type: ignore[arg-type]  # types are hashable

    def announce(images: int) -> None:
        for module in found:
            module.images = images

    return announce


def images_on_all_ranks(batch: int, parts: int, index: int) -> int:
    """How many images the `index`-th of so many parts of a batch has in all processes (`batches` deals them out, `in_parts` splits)."""
    own = (len(range(of, batch, world_size())) for of in range(world_size()))
    return sum(count // parts + (index < count % parts) for count in own)


@cache
def _shared(kind: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """A layer of this kind, which multiplies by noise, with the noise drawn for the images of all processes."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            return kind.forward(self, x)  # type: ignore[no-any-return]
        noise = kind.forward(self, _ones(x, self.images, _drawn_axes(kind)))
        return x * noise[rank() :: world_size()]

    return type(kind.__name__, (kind,), {"forward": forward})


def _drawn_axes(kind: type[torch.nn.Module]) -> int | None:
    """Along how many axes the noise varies: images, or channels of images; None: all."""
    if not issubclass(kind, _DROPOUTS):
        return 1
    return None if issubclass(kind, Dropout) else 2


def _ones(x: Tensor, images: int, axes: int | None) -> Tensor:
    """For so many images; as x is in memory, for draws follow its order."""
    drawn = x.shape[1:axes]
    ones = x.new_ones((images, *drawn, *[1] * (x.ndim - 1 - len(drawn))))
    like = _FORMATS.get(x.ndim, torch.contiguous_format)
    return ones.contiguous(memory_format=like) if x.is_contiguous(memory_format=like) else ones

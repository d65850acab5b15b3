"""Depthwise convolutions that a processor differentiates slowly in bfloat16."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor


def in_float32(network: torch.nn.Module) -> None:
    """Let the depthwise convolutions of `network` that stride, dilate or are larger than 3 x 3 leave autocast; changed in place.

    oneDNN has fast gradients of these in float32 (channels-last) alone: 5 x 5 of stride 2 on 144 channels takes 11 ms there and 96
    in bfloat16, on an AMD EPYC with AVX-512-BF16. They read and give what the layers around them do; names and weights stay.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and _is_slow(module):
            module.__class__ = _float32(type(module))  # type: ignore[arg-type]  # types are hashable


def _is_slow(conv: torch.nn.Conv2d) -> bool:
    depthwise = conv.groups == conv.in_channels > 1
    return depthwise and (max(conv.kernel_size) > 3 or max(conv.stride) > 1 or max(conv.dilation) > 1)


@cache
def _float32(kind: type[torch.nn.Conv2d]) -> type[torch.nn.Conv2d]:
    """A convolution of this kind (timm has some with padding of their own) that computes in float32 under autocast too."""

    def forward(self: torch.nn.Conv2d, x: Tensor, *more: Any) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return kind.forward(self, x.float(), *more).to(x.dtype)

    return type(kind.__name__, (kind,), {"forward": forward})

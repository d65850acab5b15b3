"""Faster bilinear upsampling of channels-last images on a CPU, for two cases in which torch is slow.

- Its gradient is strided, because its output was concatenated with something. 8 x 256 x 64 x 64 in bfloat16 on an AMD EPYC with
  AVX-512-BF16: 2.6 ms if the gradient is copied to the output's memory order first, 23 if not.
- There are fewer than four channels, such as the logits of three classes. From 8 x 3 x 64 x 64 to 256 x 256: 2.5 ms for contiguous
  images, 8.1 for channels-last ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segpipe.ops.swap import swap_classes

_MIN_CHANNELS = 4
"""The number of channels from which on torch's kernel vectorises along them."""


def use_fast_upsampling(network: torch.nn.Module) -> None:
    """Replace the bilinear upsampling layers of a network by the faster version of this module, in place. Its results are the same."""
    swap_classes(network, lambda module: _FastUpsample if _is_supported(module) else None)


def _is_supported(module: torch.nn.Module) -> bool:
    return type(module) is torch.nn.Upsample and module.mode == "bilinear"


class _FastUpsample(torch.nn.Upsample):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.contiguous() if x.shape[1] < _MIN_CHANNELS else x)
        if y.requires_grad and y.is_contiguous(memory_format=torch.channels_last):
            y.register_hook(_to_channels_last)
        return y


def _to_channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)

"""Decoders of segmentation_models_pytorch whose first convolution reads doubled features, trained without doubling them.

Doubling height and width by repetition and then convolving with 3 x 3 is one transposed convolution with 4 x 4 and stride 2: each output
pixel takes 4 products a channel instead of 9, and nothing of the larger size is made but the result. Training computes so on a processor,
where that spares a U-Net over EfficientNet-Lite0 an eighth of its step. Anywhere else, and for an export, the blocks are as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.manet.decoder import DecoderBlock as ManetBlock
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from segmentation_models_pytorch.decoders.unetplusplus.decoder import DecoderBlock as UnetPlusPlusBlock
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def use_fused_upsampling(network: torch.nn.Module) -> torch.nn.Module:
    """The network with its decoder's blocks trained as above; changed in place. Names and weights stay."""
    for module in network.modules():
        for kind, own in _BLOCKS.items():
            if type(module) is kind and module.interpolation_mode == "nearest" and module.conv1 is not None:
                module.__class__ = own
    return network


def convolve_doubled(x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``conv2d(cat([interpolate(x, scale_factor=2, mode="nearest"), skip], 1), weight, bias, padding=1)``, to rounding.

    x: (N, C, H, W); skip: (N, S, 2 H, 2 W); weight: (O, C + S, 3, 3). (N, O, 2 H, 2 W).
    """
    channels, layout = x.shape[1], _layout(x)
    kernel = _doubled(weight[:, :channels]).contiguous(memory_format=layout)
    y = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    if skip is None:
        return y
    return y + F.conv2d(skip, weight[:, channels:].contiguous(memory_format=layout), padding=1)


def _doubled(weight: Tensor) -> Tensor:
    """(O, C, 3, 3), applied to doubled features -> (C, O, 4, 4), the kernel of a transposed convolution: along each axis, an input pixel
    reaches the output by the sum of the taps that its two copies meet."""
    wide = F.pad(weight, (1, 1, 1, 1))
    wide = wide[:, :, :-1] + wide[:, :, 1:]
    return (wide[..., :-1] + wide[..., 1:]).transpose(0, 1).flip(2, 3)


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def applies_to(block: torch.nn.Module, x: Tensor) -> bool:
    """Whether a block is to compute for training what it otherwise would not."""
    return block.training and x.device.type in ("cpu", "meta")  # meta: what a step would need here


def _blended(layers: Sequence[torch.nn.Module], x: Tensor, skip: Tensor | None) -> Tensor:
    """What a block's first convolution, its normalisation and its activation make of doubled features and those beside them."""
    conv, norm, activation = layers
    y: Tensor = activation(norm(convolve_doubled(x, skip, conv.weight, conv.bias)))  # type: ignore[arg-type]
    return y


class _Unet(UnetDecoderBlock):
    def forward(
        self, feature_map: Tensor, target_height: int, target_width: int, skip_connection: Tensor | None = None
    ) -> Tensor:
        doubled = (target_height, target_width) == tuple(2 * edge for edge in feature_map.shape[2:])
        if not doubled or not applies_to(self, feature_map):
            return super().forward(feature_map, target_height, target_width, skip_connection)
        return self.conv2(_blended(self.conv1, feature_map, skip_connection))  # type: ignore[no-any-return]


class _UnetPlusPlus(UnetPlusPlusBlock):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.conv2(_blended(self.conv1, x, skip)) if applies_to(self, x) else super().forward(x, skip)


class _Manet(ManetBlock):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.conv2(_blended(self.conv1, x, skip)) if applies_to(self, x) else super().forward(x, skip)


_BLOCKS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    UnetDecoderBlock: _Unet,
    UnetPlusPlusBlock: _UnetPlusPlus,
    ManetBlock: _Manet,
}
"""By kind of block: the same, trained without doubling. The attention that some have is off (`without_doubling` builds on that)."""

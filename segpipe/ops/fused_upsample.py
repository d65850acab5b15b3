"""Decoders of segmentation_models_pytorch whose first convolution reads doubled features, trained without doubling them.

Doubling height and width by repetition, followed by a 3 x 3 convolution, is one transposed convolution with 4 x 4 and stride 2: each
output pixel takes 4 products per channel instead of 9, and nothing of the larger size is stored but the result. Training on a CPU
computes it in this way, which saves a U-Net over EfficientNet-Lite0 an eighth of its step. On other devices, in inference and for an
export, the blocks are unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.manet.decoder import DecoderBlock as ManetBlock
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from segmentation_models_pytorch.decoders.unetplusplus.decoder import DecoderBlock as UnetPlusPlusBlock
from torch import Tensor

from segpipe.ops.swap import swap_classes

if TYPE_CHECKING:
    from collections.abc import Sequence


def use_fused_upsampling(network: torch.nn.Module) -> torch.nn.Module:
    """Replace the decoder blocks of a network by the faster version of this module, in place. Returns the network."""
    swap_classes(network, _replacement_for)
    return network


def _replacement_for(module: torch.nn.Module) -> type[torch.nn.Module] | None:
    replacement = _REPLACEMENTS.get(type(module))
    if replacement is None or module.interpolation_mode != "nearest" or module.conv1 is None:
        return None
    return replacement


def convolve_doubled(x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve features that are doubled by repetition, together with a skip connection, without doubling them.

    The result is, up to rounding,
    ``conv2d(cat([interpolate(x, scale_factor=2, mode="nearest"), skip], 1), weight, bias, padding=1)``.

    Args:
        x: (N, C, H, W).
        skip: (N, S, 2 H, 2 W), or None.
        weight: (O, C + S, 3, 3).
        bias: (O,), or None.

    Returns:
        (N, O, 2 H, 2 W).
    """
    channels, layout = x.shape[1], _layout(x)
    kernel = _transposed_kernel(weight[:, :channels]).contiguous(memory_format=layout)
    y = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    if skip is None:
        return y
    return y + F.conv2d(skip, weight[:, channels:].contiguous(memory_format=layout), padding=1)


def _transposed_kernel(weight: Tensor) -> Tensor:
    """Turn a kernel (O, C, 3, 3) for doubled features into that of a transposed convolution, (C, O, 4, 4).

    Along each axis, an input pixel reaches the output by the sum of the taps that its two copies meet.
    """
    wide = F.pad(weight, (1, 1, 1, 1))
    wide = wide[:, :, :-1] + wide[:, :, 1:]
    return (wide[..., :-1] + wide[..., 1:]).transpose(0, 1).flip(2, 3)


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def applies_to(block: torch.nn.Module, x: Tensor) -> bool:
    """Return whether a block computes in the fast way for this input: in training on a CPU, or on the meta device, which stands for it."""
    return block.training and x.device.type in ("cpu", "meta")


def _first_convolution(layers: Sequence[torch.nn.Module], x: Tensor, skip: Tensor | None) -> Tensor:
    """Apply a block's first convolution, normalisation and activation to doubled features and the skip connection."""
    conv, norm, activation = layers
    y: Tensor = activation(norm(convolve_doubled(x, skip, conv.weight, conv.bias)))  # type: ignore[arg-type]
    return y


class _Unet(UnetDecoderBlock):
    def forward(
        self, feature_map: Tensor, target_height: int, target_width: int, skip_connection: Tensor | None = None
    ) -> Tensor:
        doubles = (target_height, target_width) == tuple(2 * edge for edge in feature_map.shape[2:])
        if not doubles or not applies_to(self, feature_map):
            return super().forward(feature_map, target_height, target_width, skip_connection)
        return self.conv2(_first_convolution(self.conv1, feature_map, skip_connection))


class _UnetPlusPlus(UnetPlusPlusBlock):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.conv2(_first_convolution(self.conv1, x, skip)) if applies_to(self, x) else super().forward(x, skip)


class _Manet(ManetBlock):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.conv2(_first_convolution(self.conv1, x, skip)) if applies_to(self, x) else super().forward(x, skip)


_REPLACEMENTS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    UnetDecoderBlock: _Unet,
    UnetPlusPlusBlock: _UnetPlusPlus,
    ManetBlock: _Manet,
}
"""By class of block: the same, trained without doubling. The attention that some blocks offer must be off."""

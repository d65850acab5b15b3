"""The decoder of segmentation_models_pytorch's FPN, trained without computing its finest level.

That level is the one above it, doubled, plus a skip connection of few channels through a 1 x 1 convolution; its only reader is one
3 x 3 convolution. All of this is linear, so training on a CPU computes the result without the intermediate level: the doubled part as in
`fused_upsample`, the other by one kernel that combines both convolutions. This saves an FPN over EfficientNet-Lite0 a twelfth of its
step. On other devices, in inference and for an export, the decoder is unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.fpn.decoder import FPNBlock, FPNDecoder
from torch import Tensor

from segpipe.ops.fused_upsample import applies_to, convolve_doubled
from segpipe.ops.swap import swap_classes


def use_fused_pyramid(network: torch.nn.Module) -> torch.nn.Module:
    """Replace the FPN decoder of a network by the faster version of this module, in place. Returns the network."""
    swap_classes(network, lambda module: _FusedFPNDecoder if _is_supported(module) else None)
    return network


def _is_supported(module: torch.nn.Module) -> bool:
    return type(module) is FPNDecoder and module.p2.interpolation_mode == "nearest"  # type: ignore[union-attr]


class _FusedFPNDecoder(FPNDecoder):
    def forward(self, features: list[Tensor]) -> Tensor:
        if not applies_to(self, features[-1]):
            return super().forward(features)
        c2, c3, c4, c5 = features[-4:]
        p5 = self.p5(c5)
        p4 = self.p4(p5, c4)
        p3 = self.p3(p4, c3)
        coarse = [block(level) for block, level in zip(self.seg_blocks, (p5, p4, p3), strict=False)]
        convolution, *others = self.seg_blocks[3].block[0].block
        finest = convolve_level(p3, c2, self.p2, convolution.weight)
        for layer in others:
            finest = layer(finest)
        return self.dropout(self.merge([*coarse, finest]))


def convolve_level(above: Tensor, skip: Tensor, level: FPNBlock, weight: Tensor) -> Tensor:
    """Compute ``conv2d(level(above, skip), weight, padding=1)``, up to rounding.

    Args:
        above: the coarser level, (N, C, H, W).
        skip: the skip connection, (N, S, 2 H, 2 W).
        level: the block that combines them.
        weight: (O, C, 3, 3).

    Returns:
        (N, O, 2 H, 2 W).
    """
    # The level's bias does not exist beyond the image's edge, where the convolution reads too: a channel of ones carries it.
    skip = F.pad(skip, (0, 0, 0, 0, 0, 1), value=1.0)
    point = torch.cat([level.skip_conv.weight.flatten(1), level.skip_conv.bias[:, None]], 1)
    composed = torch.einsum("ocij,cs->osij", weight, point)
    return convolve_doubled(above, skip, torch.cat([weight, composed.to(weight.dtype)], 1))

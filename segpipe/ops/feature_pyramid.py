"""The decoder of segmentation_models_pytorch's FPN, trained without its finest level.

That level is the one above, doubled, plus a skip connection of few channels through a 1 x 1 convolution; nothing reads it but one 3 x 3
convolution. All of this is linear, so training on a processor computes what comes out without what lies between: the doubled part as in
`doubling`, the other by one kernel that does what both convolutions do. That spares an FPN over EfficientNet-Lite0 a twelfth of its step.
Anywhere else, and for an export, the decoder is as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.fpn.decoder import FPNBlock, FPNDecoder
from torch import Tensor

from segpipe.ops.fused_upsample import applies_to, convolve_doubled


def use_fused_pyramid(network: torch.nn.Module) -> torch.nn.Module:
    """The network with its decoder trained as above; changed in place. Names and weights stay."""
    for module in network.modules():
        if type(module) is FPNDecoder and module.p2.interpolation_mode == "nearest":  # type: ignore[union-attr]
            module.__class__ = _Fpn
    return network


class _Fpn(FPNDecoder):
    def forward(self, features: list[Tensor]) -> Tensor:
        if not applies_to(self, features[-1]):
            return super().forward(features)  # type: ignore[no-any-return]
        c2, c3, c4, c5 = features[-4:]
        p5 = self.p5(c5)
        p4 = self.p4(p5, c4)
        p3 = self.p3(p4, c3)
        coarse = [block(level) for block, level in zip(self.seg_blocks, (p5, p4, p3), strict=False)]
        convolution, *rest = self.seg_blocks[3].block[0].block
        finest = convolve_level(p3, c2, self.p2, convolution.weight)
        for layer in rest:
            finest = layer(finest)
        return self.dropout(self.merge([*coarse, finest]))  # type: ignore[no-any-return]


def convolve_level(above: Tensor, skip: Tensor, level: FPNBlock, weight: Tensor) -> Tensor:
    """``conv2d(level(above, skip), weight, padding=1)``, to rounding.

    above: (N, C, H, W); skip: (N, S, 2 H, 2 W); weight: (O, C, 3, 3). (N, O, 2 H, 2 W).
    """
    # The level's bias is nothing beyond the picture's edge, where the convolution looks too: it is that of a channel of ones.
    skip = F.pad(skip, (0, 0, 0, 0, 0, 1), value=1.0)
    point = torch.cat([level.skip_conv.weight.flatten(1), level.skip_conv.bias[:, None]], 1)  # type: ignore[index]
    composed = torch.einsum("ocij,cs->osij", weight, point)
    return convolve_doubled(above, skip, torch.cat([weight, composed.to(weight.dtype)], 1))

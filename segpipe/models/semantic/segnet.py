"""SegNet: VGG16 with batch normalisation, and a mirrored decoder that puts each value back where max-pooling found it.

Badrinarayanan, Kendall, Cipolla 2017, arXiv:1511.00561.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segpipe.models.semantic.encoder_decoders import EncoderConfig

if TYPE_CHECKING:
    from segpipe.models.semantic.segnet_network import SegNet


class SegNetConfig(EncoderConfig):
    """Settings of a SegNet."""

    encoder: Literal["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"] = "vgg16_bn"
    """vgg16_bn is the paper's; the decoder mirrors whichever it is."""
    deep_supervision: bool = True
    """Whether the levels of the decoder learn to tell classes too, by heads of which only training makes use (Lee et al. 2015,
    arXiv:1409.5185); false is the paper's, which takes far more steps to learn."""


def build_segnet(config: SegNetConfig, in_channels: int, n_classes: int) -> SegNet:
    """(N, in_channels, H, W) -> logits (N, n_classes, H, W); H and W are multiples of 32."""
    from segpipe.models.semantic.segnet_network import SegNet
    from segpipe.models.weights.encoder_weights import build_encoder

    encoder = build_encoder(config.encoder, config.encoder_weights, in_channels)
    return SegNet(encoder, n_classes, config.deep_supervision)

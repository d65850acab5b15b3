"""SegNet: VGG16 with batch normalisation, and a mirrored decoder that restores each value at its position before max-pooling.

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
    """vgg16_bn is the paper's. The decoder mirrors the encoder."""
    deep_supervision: bool = True
    """Train the levels of the decoder to predict classes too, with heads that only training uses (Lee et al. 2015, arXiv:1409.5185).
    false is the paper's, which needs far more training steps."""


def build_segnet(config: SegNetConfig, in_channels: int, n_classes: int) -> SegNet:
    """Build a SegNet.

    Args:
        config: Settings.
        in_channels: Number of channels of the input image.
        n_classes: Number of output channels.

    Returns:
        A module that maps images (N, in_channels, H, W) to logits (N, n_classes, H, W); H and W are multiples of 32.
    """
    from segpipe.models.semantic.segnet_network import SegNet
    from segpipe.models.weights.encoder_weights import build_encoder

    encoder = build_encoder(config.encoder, config.encoder_weights, in_channels)
    return SegNet(encoder, n_classes, config.deep_supervision)

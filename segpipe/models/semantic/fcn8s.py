"""FCN-8s: VGG16 with its classifier turned into convolutions, and scores of three scales summed on the way up.

Long, Shelhamer, Darrell 2015, arXiv:1411.4038. Convolutions are padded, so that nothing has to be cropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segpipe.models.semantic.encoder_decoders import EncoderConfig

if TYPE_CHECKING:
    from segpipe.models.semantic.fcn8s_network import Fcn8s


class Fcn8sConfig(EncoderConfig):
    """Settings of an FCN-8s."""

    encoder: Literal["vgg16", "vgg16_bn"] = "vgg16_bn"
    """vgg16 is the paper's; vgg16_bn, with batch normalisation, also learns from random weights and at higher rates."""
    width: int = Field(1024, ge=16, le=4096)
    """Channels of the two layers on top. The paper's 4096 have 120 million parameters; 1024 were found to do as well
    (Chen et al. 2015, arXiv:1412.7062)."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """After each of these two layers."""


def build_fcn8s(config: Fcn8sConfig, in_channels: int, n_classes: int) -> Fcn8s:
    """(N, in_channels, H, W) -> logits (N, n_classes, H, W); H and W are multiples of 32."""
    from segpipe.models.semantic.fcn8s_network import Fcn8s
    from segpipe.models.weights.encoder_weights import build_encoder

    encoder = build_encoder(config.encoder, config.encoder_weights, in_channels)
    return Fcn8s(encoder, config.width, config.dropout, n_classes)

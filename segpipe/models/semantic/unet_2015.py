"""The original U-Net: plain convolutions, dropout in the deepest block, no pretraining.

Ronneberger, Fischer, Brox 2015, arXiv:1505.04597. Convolutions are padded, so that the mask is as large as the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from segpipe.models.semantic.unet_2015_network import Unet2015


class Unet2015Config(BaseModel):
    """Settings of the original U-Net."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(64, ge=4, le=256)
    """Channels at full resolution, doubled at each step down."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout rate of the deepest block, in training."""
    batch_norm: bool = False
    """Normalise after each convolution, unlike the paper: learns faster, and allows higher learning rates."""
    encoder_weights: str = Field("none", pattern=r"^(none|.+@v\d+\.\d+\.\d+)$")
    """none (random), or NAME@VERSION: all weights of a released model."""


def build_unet_2015(config: Unet2015Config, in_channels: int, n_classes: int) -> Unet2015:
    """Build the original U-Net.

    Args:
        config: Settings.
        in_channels: Number of channels of the input image.
        n_classes: Number of output channels.

    Returns:
        A module that maps images (N, in_channels, H, W) to logits (N, n_classes, H, W); H and W are multiples of 16.
    """
    from segpipe.models.semantic.unet_2015_network import Unet2015

    return Unet2015(in_channels, n_classes, config.width, config.dropout, config.batch_norm)

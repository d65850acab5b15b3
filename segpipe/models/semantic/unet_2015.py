"""The U-Net of 2015: plain convolutions, dropout at the bottom, no pretraining.

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
    """Channels at full size, doubled at each step down."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """At the bottom, in training."""
    batch_norm: bool = False
    """Normalise after each convolution, which the paper did not: learns faster, and at higher rates."""
    encoder_weights: str = Field("none", pattern=r"^(none|.+@v\d+\.\d+\.\d+)$")
    """none (random), or NAME@VERSION: a released model, all of its weights."""


def build_unet_2015(config: Unet2015Config, in_channels: int, n_classes: int) -> Unet2015:
    """(N, in_channels, H, W) -> logits (N, n_classes, H, W); H and W are multiples of 16."""
    from segpipe.models.semantic.unet_2015_network import Unet2015

    return Unet2015(in_channels, n_classes, config.width, config.dropout, config.batch_norm)

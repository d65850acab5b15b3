"""SegResNet, from MONAI (Myronenko 2018, arXiv:1810.11654)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from segpipe.models.volumetric.volume_config import VolumeConfig

if TYPE_CHECKING:
    import torch

_NORM_GROUPS = 8
"""Groups of channels that are normalised together."""


class SegresnetConfig(VolumeConfig):
    """Settings of a SegResNet."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the channels of the first level that are dropped in training."""

    @field_validator("channels")
    @classmethod
    def _in_groups(cls, channels: int) -> int:
        if channels % _NORM_GROUPS:
            raise ValueError(
                f"channels must be a multiple of {_NORM_GROUPS}, because they are normalised in {_NORM_GROUPS} groups"
            )
        return channels


def build_segresnet(config: SegresnetConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Build a SegResNet without its auto-encoder: residual blocks with group normalisation.

    Args:
        config: Settings.
        in_channels: Number of channels of the input volume.
        n_classes: Number of output channels.

    Returns:
        A module that maps volumes (N, in_channels, D, H, W) to logits (N, n_classes, D, H, W); D, H and W are multiples of
        `config.patch_multiple`.
    """
    from monai.networks.nets import SegResNet

    blocks_down = (1, *(2,) * (config.depth - 2), 4)
    network: torch.nn.Module = SegResNet(
        3,
        config.channels,
        in_channels,
        n_classes,
        config.dropout or None,
        blocks_down=blocks_down,
        blocks_up=(1,) * (config.depth - 1),
        upsample_mode="deconv",
    )
    return network

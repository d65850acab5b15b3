"""V-Net, with the blocks of MONAI (Milletari, Navab, Ahmadi 2016, arXiv:1606.04797)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from segpipe.models.volumetric.volume_config import VolumeConfig

if TYPE_CHECKING:
    import torch


class VnetConfig(VolumeConfig):
    """Settings of a V-Net."""

    channels: int = Field(8, ge=4, le=64)
    """Channels of the first level, doubled at each further level. The paper has 16, and depth 5."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the channels that are dropped on the two deepest levels and in the skip connections, in training."""


def build_vnet(config: VnetConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Build a V-Net of any width and depth: residual blocks of 5 x 5 x 5 convolutions with batch normalisation.

    The first block adds the input to each of its channels, so their number has to be a multiple of the input's. If it is not, a
    1 x 1 x 1 convolution precedes the block.

    Args:
        config: Settings.
        in_channels: Number of channels of the input volume.
        n_classes: Number of output channels.

    Returns:
        A module that maps volumes (N, in_channels, D, H, W) to logits (N, n_classes, D, H, W); D, H and W are multiples of
        `config.patch_multiple`.
    """
    import torch
    from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition

    act = ("elu", {"inplace": True})
    widths = [config.channels * 2**level for level in range(config.depth)]
    first_dropout_level, dropout = config.depth - 3, config.dropout or None

    class Vnet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            divisible = config.channels % in_channels == 0
            self.fit = torch.nn.Identity() if divisible else torch.nn.Conv3d(in_channels, config.channels, 1)
            self.first = InputTransition(3, in_channels if divisible else config.channels, config.channels, act)
            self.down = torch.nn.ModuleList(
                DownTransition(3, width, min(level + 1, 3), act, dropout if level >= first_dropout_level else None)
                for level, width in enumerate(widths[:-1])
            )
            # Except for the deepest level, the features from below have twice the channels of the skip connection.
            from_below = [widths[-1], *(2 * width for width in widths[-2:0:-1])]
            self.up = torch.nn.ModuleList(
                UpTransition(3, c, 2 * skip, min(len(widths) - 1 - i, 2), act, (None, config.dropout))
                for i, (c, skip) in enumerate(zip(from_below, widths[-2::-1], strict=True))
            )
            self.last = OutputTransition(3, 2 * config.channels, n_classes, act)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skips = [self.first(self.fit(x))]
            for down in self.down:
                skips.append(down(skips[-1]))
            x = skips.pop()
            for up in self.up:
                x = up(x, skips.pop())
            logits: torch.Tensor = self.last(x)
            return logits

    return Vnet()

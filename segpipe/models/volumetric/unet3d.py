"""3D U-Net with the blocks of nnU-Net, from MONAI.

If voxels are much longer along one axis than along the others (thick slices), that axis is not halved on the first levels, until
voxels are about cubes. `plan` derives `whole_levels` from the voxel size of the dataset (Isensee et al. 2021,
doi:10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pydantic import Field

from segpipe.models.volumetric.volume_config import Axes, VolumeConfig

if TYPE_CHECKING:
    import torch

_MAX_CHANNELS = 320


class Unet3dConfig(VolumeConfig):
    """Settings of a 3D U-Net."""

    whole_levels: Axes | None = None
    """Number of levels, per axis, on which the axis is neither halved nor convolved along (for thick slices); null: derived from the
    voxel size."""
    deep_supervision: bool = Field(False, exclude_if=operator.not_)
    """Train the levels between the finest and the deepest to predict classes too, with heads that only training uses."""

    @property
    def patch_multiple(self) -> Axes:
        """Numbers of voxels, per axis, that the size of a patch must be a multiple of."""
        depth, height, width = (2 ** max(0, self.depth - 1 - whole) for whole in self.whole_levels or (0, 0, 0))
        return depth, height, width

    def for_spacing(self, spacing: Sequence[float]) -> Self:
        """Fill in `whole_levels`: the number of halvings by which the finest axis becomes as coarse as each axis.

        Args:
            spacing: Size of a voxel in mm: depth, height, width.
        """
        if self.whole_levels is not None:
            return self
        whole = [min(self.depth - 1, round(math.log2(edge / min(spacing)))) for edge in spacing]
        return self.model_copy(update={"whole_levels": tuple(whole)})


def build_unet3d(config: Unet3dConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Build a 3D U-Net.

    Each level has two convolutions with instance normalisation; strided convolutions lead down, transposed convolutions up.

    Args:
        config: Settings.
        in_channels: Number of channels of the input volume.
        n_classes: Number of output channels.

    Returns:
        A module that maps volumes (N, in_channels, D, H, W) to logits (N, n_classes, D, H, W); D, H and W are multiples of
        `config.patch_multiple`. In training with deep supervision it returns a tuple: the logits of each level, the finest first.
    """
    import torch
    from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetUpBlock

    whole = config.whole_levels or (0, 0, 0)
    kernels = [[1 if level < w else 3 for w in whole] for level in range(config.depth)]
    strides = [[1, 1, 1], *([1 if level < w else 2 for w in whole] for level in range(config.depth - 1))]
    widths = [min(config.channels * 2**level, _MAX_CHANNELS) for level in range(config.depth)]
    instance_norm = ("INSTANCE", {"affine": True})
    levels = list(zip([in_channels, *widths], widths, kernels, strides, strict=False))

    class Unet3d(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = torch.nn.ModuleList(
                UnetBasicBlock(3, before, width, kernel, stride, instance_norm)
                for before, width, kernel, stride in levels
            )
            self.up = torch.nn.ModuleList(
                UnetUpBlock(3, width, before, kernel, stride, stride, instance_norm)
                for before, width, kernel, stride in reversed(levels[1:])
            )
            self.last = torch.nn.Conv3d(widths[0], n_classes, 1)
            supervised = widths[1:-1] if config.deep_supervision else []
            self.sides = torch.nn.ModuleList(torch.nn.Conv3d(width, n_classes, 1) for width in supervised)

        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            encoder_features, decoder_features = [], []
            for down in self.down:
                x = down(x)
                encoder_features.append(x)
            for up, skip in zip(self.up, encoder_features[-2::-1], strict=True):
                x = up(x, skip)
                decoder_features.append(x)
            logits: torch.Tensor = self.last(x)
            if not (self.training and self.sides):
                return logits
            levels = zip(self.sides, decoder_features[-2::-1], strict=True)
            return (logits, *(side(features) for side, features in levels))

    return Unet3d()

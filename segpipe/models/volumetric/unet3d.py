"""Networks for volumes: (N, C, D, H, W) -> logits (N, n_classes, D, H, W). Blocks and networks are MONAI's; what is set here is
their size, small enough to train on two cores, and how deep each axis is halved.

Where voxels are much longer along one axis than along the others (thick slices), that axis is left whole on the first levels
until voxels are about cubes: `plan` fills `whole_levels` from the dataset's voxel size (Isensee et al. 2021,
doi:10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    import torch

Axes = tuple[int, int, int]
"""A number for each axis, (depth, height, width)."""

_MOST_CHANNELS = 320


class VolumeConfig(BaseModel):
    """What every network for volumes can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: int = Field(16, ge=4, le=64)
    """Channels of the first level; each level has twice as many as the one above (a U-Net's no more than 320)."""
    depth: int = Field(4, ge=3, le=7)
    """Levels. The deepest sees the volume halved depth - 1 times."""
    encoder_weights: str = Field("none", pattern=r"^(none|.+@v\d+\.\d+\.\d+)$")
    """none (random), or NAME@VERSION: a released model, all of its weights."""

    @property
    def steps(self) -> Axes:
        """Patches are multiples of this along each axis."""
        return (2 ** (self.depth - 1),) * 3

    def fitted(self, spacing: Sequence[float]) -> Self:
        """These settings with what follows from the size of a voxel (mm, by axis) filled in."""
        return self


class Unet3dConfig(VolumeConfig):
    """Settings of a 3D U-Net."""

    whole_levels: Axes | None = None
    """On how many levels each axis is not halved, nor looked along (thick slices); null: from the size of a voxel."""
    deep_supervision: bool = Field(False, exclude_if=operator.not_)
    """Whether the levels between the finest and the deepest learn to tell classes too, by heads of which only training makes use."""

    @property
    def steps(self) -> Axes:
        """Patches are multiples of this along each axis."""
        depth, height, width = (2 ** max(0, self.depth - 1 - whole) for whole in self.whole_levels or (0, 0, 0))
        return depth, height, width

    def fitted(self, spacing: Sequence[float]) -> Self:
        """`whole_levels` from the size of a voxel: as many as the finest axis needs halvings to become as long as this one."""
        if self.whole_levels is not None:
            return self
        whole = [min(self.depth - 1, round(math.log2(edge / min(spacing)))) for edge in spacing]
        return self.model_copy(update={"whole_levels": tuple(whole)})


class VnetConfig(VolumeConfig):
    """Settings of a V-Net."""

    channels: int = Field(8, ge=4, le=64)
    """Channels of the first level; each level has twice as many as the one above. The paper has 16 and depth 5."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the channels that are dropped on the two deepest levels and in the skip connections."""


class SegresnetConfig(VolumeConfig):
    """Settings of a SegResNet."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the channels of the first level that are dropped."""

    @field_validator("channels")
    @classmethod
    def _in_groups(cls, channels: int) -> int:
        if channels % 8:
            raise ValueError("channels are normalised in 8 groups: a multiple of 8")
        return channels


def build_unet3d(config: Unet3dConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """A 3D U-Net of nnU-Net's blocks: two convolutions with instance normalisation a level, strided on the way down, transposed
    on the way up; D, H, W are multiples of `config.steps`. Where its levels are supervised, it gives the logits of each in training, a
    tuple, the finest first.
    """
    import torch
    from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetUpBlock

    whole = config.whole_levels or (0, 0, 0)
    kernels = [[1 if level < w else 3 for w in whole] for level in range(config.depth)]
    strides = [[1, 1, 1], *([1 if level < w else 2 for w in whole] for level in range(config.depth - 1))]
    widths = [min(config.channels * 2**level, _MOST_CHANNELS) for level in range(config.depth)]
    normalised = ("INSTANCE", {"affine": True})
    levels = list(zip([in_channels, *widths], widths, kernels, strides, strict=False))

    class Unet3d(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = torch.nn.ModuleList(
                UnetBasicBlock(3, before, width, kernel, stride, normalised) for before, width, kernel, stride in levels
            )
            self.up = torch.nn.ModuleList(
                UnetUpBlock(3, width, before, kernel, stride, stride, normalised)
                for before, width, kernel, stride in reversed(levels[1:])
            )
            self.last = torch.nn.Conv3d(widths[0], n_classes, 1)
            supervised = widths[1:-1] if config.deep_supervision else []
            self.sides = torch.nn.ModuleList(torch.nn.Conv3d(width, n_classes, 1) for width in supervised)

        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            seen, rising = [], []
            for down in self.down:
                x = down(x)
                seen.append(x)
            for up, skip in zip(self.up, seen[-2::-1], strict=True):
                x = up(x, skip)
                rising.append(x)
            out: torch.Tensor = self.last(x)
            if not (self.training and self.sides):
                return out
            return (out, *(side(level) for side, level in zip(self.sides, rising[-2::-1], strict=True)))

    return Unet3d()


def build_segresnet(config: SegresnetConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """A SegResNet without its auto-encoder: residual blocks with group normalisation; D, H, W are multiples of `config.steps`."""
    from monai.networks.nets import SegResNet

    down = (1, *(2,) * (config.depth - 2), 4)
    network: torch.nn.Module = SegResNet(
        3,
        config.channels,
        in_channels,
        n_classes,
        config.dropout or None,
        blocks_down=down,
        blocks_up=(1,) * (config.depth - 1),
        upsample_mode="deconv",
    )
    return network


def build_vnet(config: VnetConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """A V-Net of any width and depth, from the paper's transitions: residual blocks of 5 x 5 x 5 convolutions with batch
    normalisation; D, H, W are multiples of `config.steps`.

    The first transition adds the input to each of its channels, so their number has to be a multiple of the input's; where it
    is not, a 1 x 1 x 1 convolution comes before it.
    """
    import torch
    from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition

    act = ("elu", {"inplace": True})
    widths = [config.channels * 2**level for level in range(config.depth)]
    deepest, drop = config.depth - 2, config.dropout or None

    class Vnet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            even = config.channels % in_channels == 0
            self.fit = torch.nn.Identity() if even else torch.nn.Conv3d(in_channels, config.channels, 1)
            self.first = InputTransition(3, in_channels if even else config.channels, config.channels, act)
            self.down = torch.nn.ModuleList(
                DownTransition(3, width, min(level + 1, 3), act, drop if level >= deepest - 1 else None)
                for level, width in enumerate(widths[:-1])
            )
            # What comes up has twice the channels of the skip connection that it meets, but for the deepest.
            rising = [widths[-1], *(2 * width for width in widths[-2:0:-1])]
            self.up = torch.nn.ModuleList(
                UpTransition(3, c, 2 * skip, min(len(widths) - 1 - i, 2), act, (None, config.dropout))
                for i, (c, skip) in enumerate(zip(rising, widths[-2::-1], strict=True))
            )
            self.last = OutputTransition(3, 2 * config.channels, n_classes, act)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = [self.first(self.fit(x))]
            for down in self.down:
                seen.append(down(seen[-1]))
            x = seen.pop()
            for up in self.up:
                x = up(x, seen.pop())
            out: torch.Tensor = self.last(x)
            return out

    return Vnet()

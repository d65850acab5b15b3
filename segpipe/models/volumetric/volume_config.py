"""Settings that all networks for volumes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

Axes = tuple[int, int, int]
"""One number per axis: depth, height, width."""


class VolumeConfig(BaseModel):
    """Settings that all networks for volumes share.

    The defaults are small enough to train on two CPU cores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: int = Field(16, ge=4, le=64)
    """Channels of the first level, doubled at each further level (a U-Net has at most 320)."""
    depth: int = Field(4, ge=3, le=7)
    """Number of levels. The volume is halved depth - 1 times."""
    encoder_weights: str = Field("none", pattern=r"^(none|.+@v\d+\.\d+\.\d+)$")
    """none (random), or NAME@VERSION: all weights of a released model."""

    @property
    def patch_multiple(self) -> Axes:
        """Numbers of voxels, per axis, that the size of a patch must be a multiple of."""
        return (2 ** (self.depth - 1),) * 3

    def for_spacing(self, spacing: Sequence[float]) -> Self:
        """Return the settings with those filled in that depend on the voxel size.

        Args:
            spacing: Size of a voxel in mm: depth, height, width.
        """
        return self

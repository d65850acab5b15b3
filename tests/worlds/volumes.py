"""Small labelled volumes with known labels, and a network of two convolutions for them, because MONAI takes seconds to import."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from segpipe.models.family import Family
from segpipe.models.registry import FAMILIES
from segpipe.samples import ClassTable, Sample

TABLE = ClassTable.from_names(["background", "front", "back"])


def ellipsoid(seed: int, shape: tuple[int, int, int] | None = None, spacing=(1.0, 1.0, 1.0), dtype="float32") -> Sample:
    """Draw a bright ellipsoid whose halves along the second axis are two classes. Each float volume has another intensity scale."""
    rng = np.random.default_rng(seed)
    shape = shape or tuple(int(n) for n in rng.integers(20, 27, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    center = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
    inside = (((grid - center) / (np.array(shape) * rng.uniform(0.25, 0.33, 3))) ** 2).sum(-1) < 1
    labels = np.where(inside, np.where(grid[..., 1] < center[1], 1, 2), 0).astype(np.uint8)
    levels = np.array([0.2, 0.9, 0.6])[labels] + rng.normal(0, 0.05, shape)
    scale = 10 ** rng.uniform(2, 5) if dtype == "float32" else 100
    image = np.clip(levels, 0, 2) * scale
    return Sample(f"v{seed:02d}", image.astype(dtype)[..., None], labels, spacing=spacing)


class VolumeReader:
    """A list of volumes with the interface of ShardReader."""

    split = "test"

    def __init__(self, samples: list[Sample], n_classes: int = 3) -> None:
        self.samples = samples
        self.class_pixels = np.array(
            [np.bincount(s.labels.ravel(), minlength=256)[:n_classes] for s in samples], np.int64
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class TinyVolumeConfig(BaseModel):
    """Settings of the family."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = 8


def build(config: TinyVolumeConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv3d(in_channels, config.width, 5, padding=2),
        torch.nn.ReLU(),
        torch.nn.Conv3d(config.width, n_classes, 1),
    )


def register() -> None:
    """Register the family `tiny3d`."""
    module = "tests.worlds.volumes"
    FAMILIES["tiny3d"] = Family(
        "tiny3d", "network", "Tiny.", "none", f"{module}:TinyVolumeConfig", f"{module}:build", dims=3, stride=4
    )

"""Small labelled volumes with known labels, and a network of two convolutions for them, because MONAI takes seconds to import."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from segpipe.inference.preprocess import Normalisation
from segpipe.models.family import Family
from segpipe.models.registry import FAMILIES
from segpipe.samples import ClassTable, Sample
from segpipe.training.plan import VolumeGrid
from tests.worlds.tiny_training import make_plan

TABLE = ClassTable.from_names(["background", "front", "back"])
PATCH = (16, 20, 24)
PER_IMAGE = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)


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


def volume_plan(patch=PATCH, spacing=(1.0, 1.0, 1.0), flips=(True, True, True), **recipe):
    """A plan of a network for volumes, with these changes of its recipe."""
    grid = VolumeGrid(patch=patch, spacing=spacing, flips=flips)
    return make_plan(channels=1, **recipe).model_copy(update={"volume": grid, "normalisation": PER_IMAGE})


def random_volume(shape=(9, 12, 10), seed=0):
    """A random image of two channels, (*shape, 2) float32, and random labels of three classes, shape uint8."""
    rng = np.random.default_rng(seed)
    return rng.random((*shape, 2)).astype(np.float32), rng.integers(0, 3, shape).astype(np.uint8)

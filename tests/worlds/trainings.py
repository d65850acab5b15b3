"""A family of three convolutions, with which tests of the training loop are fast and need no SMP."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict

from segpipe.models.family import Family
from segpipe.models.registry import FAMILIES
from tests.worlds.tiny_training import make_plan


class TinyConfig(BaseModel):
    """Settings of the family."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = 8
    batch_norm: bool = True
    dropout: float = 0.0


def build(config: TinyConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    width, norm = config.width, torch.nn.BatchNorm2d if config.batch_norm else torch.nn.Identity
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, width, 3, padding=1),
        norm(width),
        torch.nn.ReLU(),
        torch.nn.Conv2d(width, width, 3, padding=1),
        norm(width),
        torch.nn.ReLU(),
        torch.nn.Dropout(config.dropout),
        torch.nn.Conv2d(width, n_classes, 1),
    )


def register() -> None:
    module = "tests.worlds.trainings"
    FAMILIES["tiny"] = Family("tiny", "network", "Tiny.", "none", f"{module}:TinyConfig", f"{module}:build", stride=1)


def tiny_plan(options=None, **recipe):
    """A plan of the tiny family, which is registered if needed."""
    register()
    recipe = {"patch": 32} | recipe
    return make_plan(family="tiny", **recipe).model_copy(update={"options": {"batch_norm": True} | (options or {})})

"""Factories of user networks, for tests of `factory:`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def build(in_channels: int, n_classes: int, width: int = 16) -> nn.Module:
    """Return a few convolutions at full resolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 5, padding=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, n_classes, 1),
    )


def build_small(in_channels: int, n_classes: int) -> nn.Module:
    """Return a network whose logits have half the image's size, which is an error."""
    return nn.Conv2d(in_channels, n_classes, 3, stride=2, padding=1)


class _Spectrum(nn.Module):
    """An operation that ONNX (as segpipe exports it) does not support."""

    def forward(self, x: Tensor) -> Tensor:
        """Return an array of the same shape."""
        return torch.fft.fft2(x).abs()


def build_without_graph(in_channels: int, n_classes: int) -> nn.Module:
    """Return a network that cannot be exported."""
    return nn.Sequential(_Spectrum(), nn.Conv2d(in_channels, n_classes, 1))


NO_FUNCTION = 3


def no_network(in_channels: int, n_classes: int) -> list[int]:
    """Return something else than a network."""
    return [in_channels, n_classes]

"""A user's own network, as tests of `factory:` name it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def build(in_channels: int, n_classes: int, width: int = 16) -> nn.Module:
    """A few convolutions at full size."""
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
    """Logits of half the image's size, which is wrong."""
    return nn.Conv2d(in_channels, n_classes, 3, stride=2, padding=1)


class _Spectrum(nn.Module):
    """What ONNX (as segpipe writes it) has no operator for."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return torch.fft.fft2(x).abs()


def build_without_graph(in_channels: int, n_classes: int) -> nn.Module:
    """A network that can't be exported."""
    return nn.Sequential(_Spectrum(), nn.Conv2d(in_channels, n_classes, 1))


NO_FUNCTION = 3


def no_network(in_channels: int, n_classes: int) -> list[int]:
    """Something else."""
    return [in_channels, n_classes]

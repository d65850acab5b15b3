"""An encoder and a head of torchvision as one network that gives logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOMENTUM = 0.1
"""Of running statistics: torch's default. MobileNetV3's own 0.01 lags behind the weights for hundreds of steps."""


class EncoderAndHead(nn.Module):
    """`encoder` gives features by name, `head` takes them (all, or the one called "out") and gives small logits."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.whole = not isinstance(head, nn.Sequential)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = _MOMENTUM

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, n_classes, H, W)."""
        features = self.encoder(images)
        logits = self.head(features if self.whole else features["out"])
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def with_channels(encoder: nn.Module, in_channels: int) -> nn.Module:
    """The encoder with its first convolution replaced by one for this many channels; the encoder itself where it has them."""
    name, first = next((n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == in_channels:
        return encoder
    shape: dict[str, Any] = {key: getattr(first, key) for key in ("out_channels", "kernel_size", "stride", "padding")}
    new = nn.Conv2d(in_channels, **shape, bias=first.bias is not None)
    parent, _, leaf = name.rpartition(".")
    setattr(encoder.get_submodule(parent), leaf, new)
    torch.nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return encoder

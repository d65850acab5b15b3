"""Combine an encoder and a head of torchvision into a network that returns logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH_NORM_MOMENTUM = 0.1
"""Momentum of running statistics: torch's default. With MobileNetV3's own 0.01 they lag behind the weights for hundreds of steps."""


class EncoderAndHead(nn.Module):
    """An encoder whose features feed a head; the head's logits are upsampled to the image's size.

    Args:
        encoder: Maps images to a dictionary of features.
        head: An `nn.Sequential` takes the features named "out"; any other head takes all of them.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.takes_all_features = not isinstance(head, nn.Sequential)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = _BATCH_NORM_MOMENTUM

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, n_classes, H, W)."""
        features = self.encoder(images)
        logits = self.head(features if self.takes_all_features else features["out"])
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def with_channels(encoder: nn.Module, in_channels: int) -> nn.Module:
    """Replace the first convolution of an encoder by a randomly initialised one for another number of channels.

    The encoder is changed in place, and returned. It is left as it is if the number of channels is the same.
    """
    name, first = next((n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == in_channels:
        return encoder
    shape: dict[str, Any] = {key: getattr(first, key) for key in ("out_channels", "kernel_size", "stride", "padding")}
    replacement = nn.Conv2d(in_channels, **shape, bias=first.bias is not None)
    parent, _, leaf = name.rpartition(".")
    setattr(encoder.get_submodule(parent), leaf, replacement)
    torch.nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
    return encoder

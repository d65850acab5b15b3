"""The network of FCN-8s, on a VGG encoder of segmentation_models_pytorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fcn8s(nn.Module):
    """FCN-8s (Long, Shelhamer, Darrell 2015, arXiv:1411.4038).

    Scores at strides 32, 16 and 8 are summed with learned upsampling that starts as bilinear; the sum is upsampled eight times,
    bilinearly. Scores start at zero, as in the paper, so that the first steps do not disturb pretrained features.

    Args:
        encoder: A VGG encoder of segmentation_models_pytorch.
        width: Channels of the two layers on top of the encoder.
        dropout: Dropout rate after each of these two layers.
        n_classes: Number of output channels.
    """

    def __init__(self, encoder: Any, width: int, dropout: float, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        # The encoder returns the features before each pooling, and those after the last one.
        _, _, pool3, pool4, _, pool5 = encoder.out_channels
        self.top = nn.Sequential(
            nn.Conv2d(pool5, width, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        for layer in (self.top[0], self.top[3]):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.scores = nn.ModuleList(nn.Conv2d(channels, n_classes, 1) for channels in (width, pool4, pool3))
        for score in self.scores:
            nn.init.zeros_(score.weight)  # type: ignore[arg-type]
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]
        self.up = nn.ModuleList(_bilinear_upsampling(n_classes) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, n_classes, H, W); H and W are multiples of 32."""
        features = self.encoder(images)
        pool3, pool4 = (F.max_pool2d(features[index], 2) for index in (2, 3))
        logits = self.scores[0](self.top(features[5]))
        logits = self.up[0](logits) + self.scores[1](pool4)
        logits = self.up[1](logits) + self.scores[2](pool3)
        return F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=False)


def _bilinear_upsampling(channels: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles height and width, initialised to bilinear interpolation of each channel."""
    layer = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = torch.outer(ramp, ramp)
    return layer

"""Four steps down, four steps up, with a skip connection at each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 4


class Unet2015(nn.Module):
    """`encoder` is the way down, `bottom` the deepest block, `ups` and `decoder` the way up."""

    def __init__(self, in_channels: int, n_classes: int, width: int, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        widths = [width * 2**step for step in range(STEPS + 1)]
        inputs = [in_channels, *widths]
        self.encoder = nn.ModuleList(_block(inputs[i], widths[i], batch_norm) for i in range(STEPS))
        self.bottom = nn.Sequential(_block(widths[-2], widths[-1], batch_norm), nn.Dropout(dropout))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(widths[i + 1], widths[i], 2, stride=2) for i in reversed(range(STEPS))
        )
        self.decoder = nn.ModuleList(_block(2 * widths[i], widths[i], batch_norm) for i in reversed(range(STEPS)))
        self.head = nn.Conv2d(width, n_classes, 1)
        for module in self.modules():  # a normal distribution of variance 2 / inputs, as in the paper
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is self.head else "relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, n_classes, H, W)."""
        x, skips = images, []
        for block in self.encoder:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)  # type: ignore[no-any-return]


def _block(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    """Two 3 x 3 convolutions with ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)

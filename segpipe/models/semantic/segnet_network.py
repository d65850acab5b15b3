"""The networks on VGG encoders (of segmentation_models_pytorch): FCN-8s and SegNet."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fcn8s(nn.Module):
    """Scores at strides 32, 16 and 8, summed by learned upsampling that starts as bilinear; then eight-fold, bilinear.

    Scores start at zero, as in the paper: there is nothing to unlearn, and pretrained features are left alone at first.
    """

    def __init__(self, encoder: Any, width: int, dropout: float, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        _, _, pool3, pool4, _, pool5 = encoder.out_channels  # of features before each pooling, and after the last
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
        self.up = nn.ModuleList(_twice(n_classes) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, n_classes, H, W)."""
        features = self.encoder(images)
        pool3, pool4 = (F.max_pool2d(features[index], 2) for index in (2, 3))
        logits = self.scores[0](self.top(features[5]))
        logits = self.up[0](logits) + self.scores[1](pool4)
        logits = self.up[1](logits) + self.scores[2](pool3)
        return F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=False)


def _twice(channels: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles height and width, channel by channel and bilinearly until it learns otherwise."""
    layer = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = torch.outer(ramp, ramp)
    return layer


class SegNet(nn.Module):
    """Encoder and decoder are mirrors; all that passes between them beside the deepest features is where maxima stood.

    The decoder's kernels begin as the encoder's, mirrored: together they are then the network that Zeiler and Fergus 2014
    (arXiv:1311.2901) draw an encoder's features back onto the image with, so that classes have their places from the first step on.
    """

    def __init__(self, encoder: Any, n_classes: int, deep_supervision: bool) -> None:
        super().__init__()
        self.encoder = encoder
        stages = _stages(encoder.features)
        self.decoder = nn.ModuleList(
            _mirror(stage, first=index == 0) for index, stage in reversed([*enumerate(stages)])
        )
        inputs, outputs = zip(*((_convolutions(stage)[0], _convolutions(stage)[-1]) for stage in stages), strict=True)
        self.head = nn.Conv2d(inputs[0].out_channels, n_classes, 3, padding=1)
        # Of the deepest features, and of what each stage of the decoder but the last gives.
        widths = [outputs[-1].out_channels, *(layer.in_channels for layer in inputs[:0:-1])] if deep_supervision else []
        self.sides = nn.ModuleList(nn.Conv2d(width, n_classes, 1) for width in widths)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, C, H, W) -> logits (N, n_classes, H, W); in training with deep supervision, also those of the levels below, halved each."""
        x, places = images, []
        for module in self.encoder.features:
            if isinstance(module, nn.MaxPool2d):
                x, found = F.max_pool2d(x, 2, return_indices=True)
                places.append(found)
            else:
                x = module(x)
        rising = [x]
        for stage in self.decoder:
            x = stage(unpool(x, places.pop()))
            rising.append(x)
        logits: Tensor = self.head(x)
        if not (self.training and self.sides):
            return logits
        levels = [side(level) for side, level in zip(self.sides, rising[:-1], strict=True)]
        return (logits, *reversed(levels))


def unpool(x: Tensor, places: Tensor) -> Tensor:
    """(N, C, h, w) and the places of these maxima in the plane that was pooled -> (N, C, 2 h, 2 w), zero elsewhere.

    The same as ``max_unpool2d``, which ONNX can't express.
    """
    n, channels, height, width = x.shape
    empty = x.new_zeros(n, channels, 4 * height * width)
    return empty.scatter(2, places.flatten(2), x.flatten(2)).view(n, channels, 2 * height, 2 * width)


def _stages(features: nn.Sequential) -> list[list[nn.Module]]:
    """The layers before each pooling."""
    stages: list[list[nn.Module]] = [[]]
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            stages.append([])
        else:
            stages[-1].append(module)
    return stages[:-1]


def _convolutions(stage: list[nn.Module]) -> list[nn.Conv2d]:
    return [layer for layer in stage if isinstance(layer, nn.Conv2d)]


def _mirror(stage: list[nn.Module], first: bool) -> nn.Sequential:
    """A stage's convolutions backwards, each with normalisation; the image's own channels are left to the head."""
    layers: list[nn.Module] = []
    for layer in reversed(_convolutions(stage)[first:]):
        own = nn.Conv2d(layer.out_channels, layer.in_channels, 3, padding=1, bias=False)
        own.load_state_dict({"weight": layer.weight.transpose(0, 1).flip(2, 3)})
        layers += [own, nn.BatchNorm2d(layer.in_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)

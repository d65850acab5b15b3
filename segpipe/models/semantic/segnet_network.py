"""The network of SegNet, on a VGG encoder of segmentation_models_pytorch."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class SegNet(nn.Module):
    """SegNet (Badrinarayanan, Kendall, Cipolla 2017, arXiv:1511.00561).

    The decoder mirrors the encoder. Apart from the deepest features, only the positions of the maxima pass from one to the other.

    The decoder's kernels start as the encoder's, mirrored. Together they then form the network that Zeiler and Fergus 2014
    (arXiv:1311.2901) use to project an encoder's features back onto the image, so that classes have their positions from the first
    step on.

    Args:
        encoder: A VGG encoder of segmentation_models_pytorch, with batch normalisation.
        n_classes: Number of output channels.
        deep_supervision: Add a head to each level of the decoder, used in training only.
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
        # Widths of the deepest features and of the output of each stage of the decoder except the last.
        widths = [outputs[-1].out_channels, *(layer.in_channels for layer in inputs[:0:-1])] if deep_supervision else []
        self.sides = nn.ModuleList(nn.Conv2d(width, n_classes, 1) for width in widths)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map images (N, C, H, W) to logits (N, n_classes, H, W); H and W are multiples of 32.

        In training with deep supervision, return a tuple: these logits, then those of the coarser levels, each at half the size of the
        one before.
        """
        x, pooling_indices = images, []
        for module in self.encoder.features:
            if isinstance(module, nn.MaxPool2d):
                x, indices = F.max_pool2d(x, 2, return_indices=True)
                pooling_indices.append(indices)
            else:
                x = module(x)
        features = [x]
        for stage in self.decoder:
            x = stage(unpool(x, pooling_indices.pop()))
            features.append(x)
        logits: Tensor = self.head(x)
        if not (self.training and self.sides):
            return logits
        levels = [side(level) for side, level in zip(self.sides, features[:-1], strict=True)]
        return (logits, *reversed(levels))


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Undo 2 x 2 max-pooling: like ``max_unpool2d``, which ONNX cannot express.

    Args:
        x: Maxima, (N, C, h, w).
        indices: Positions of these maxima in the pooled plane, (N, C, h, w), int64, as ``max_pool2d(..., return_indices=True)`` gives
            them.

    Returns:
        A tensor (N, C, 2 h, 2 w), zero everywhere except at the positions of the maxima.
    """
    n, channels, height, width = x.shape
    empty = x.new_zeros(n, channels, 4 * height * width)
    return empty.scatter(2, indices.flatten(2), x.flatten(2)).view(n, channels, 2 * height, 2 * width)


def _stages(features: nn.Sequential) -> list[list[nn.Module]]:
    """Return the layers before each pooling."""
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
    """Return a stage's convolutions in reverse order, each followed by normalisation.

    The convolution that sees the image itself (in the first stage) is left out: the head takes its place.
    """
    layers: list[nn.Module] = []
    for layer in reversed(_convolutions(stage)[first:]):
        mirrored = nn.Conv2d(layer.out_channels, layer.in_channels, 3, padding=1, bias=False)
        mirrored.load_state_dict({"weight": layer.weight.transpose(0, 1).flip(2, 3)})
        layers += [mirrored, nn.BatchNorm2d(layer.in_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)

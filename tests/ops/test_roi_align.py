"""RoIAlign over a pyramid, compared with torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from segpipe.ops.roi_align import FastMultiScaleRoIAlign

IMAGE = (96, 128)


def maps_of(strides: tuple[int, ...], seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {str(s): torch.randn(2, 5, IMAGE[0] // s, IMAGE[1] // s, requires_grad=True) for s in strides}


def some_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes of all sizes, some of them beyond the image, the first of size 0."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 140 - 20
    boxes = torch.cat([start, start + torch.rand(count, 2, generator=generator) ** 2 * 300], dim=1)
    boxes[0, 2:] = boxes[0, :2]
    return boxes


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8,), (16, 32)])
@pytest.mark.parametrize("edge", [7, 14])
def test_bins_and_gradients_equal_torchvisions(strides: tuple[int, ...], edge: int) -> None:
    boxes = [some_boxes(40, 1), some_boxes(25, 2)]
    theirs = MultiScaleRoIAlign([str(s) for s in strides], edge, sampling_ratio=2)
    theirs.scales, theirs.map_levels = (
        FastMultiScaleRoIAlign(strides, edge).scales,
        FastMultiScaleRoIAlign(strides, edge).map_levels,
    )
    results = []
    for pool in (FastMultiScaleRoIAlign(strides, edge), theirs):
        maps = maps_of(strides)
        bins = pool(maps, boxes, [IMAGE] * 2)
        (bins * torch.linspace(-1, 1, bins.numel()).view(bins.shape)).sum().backward()
        results.append([bins, *(level.grad for level in maps.values())])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_levels_and_scales_equal_torchvisions() -> None:
    strides = (4, 8, 16)
    theirs = MultiScaleRoIAlign([str(s) for s in strides], 7, sampling_ratio=2)
    boxes = [some_boxes(10, 3), some_boxes(10, 4)]
    theirs(maps_of(strides), boxes, [IMAGE] * 2)
    ours = FastMultiScaleRoIAlign(strides, 7)
    assert ours.scales == theirs.scales
    assert torch.equal(ours.map_levels(boxes), theirs.map_levels(boxes))


def test_images_without_boxes_have_no_bins() -> None:
    strides = (4, 8)
    maps, no_boxes = maps_of(strides), torch.zeros(0, 4)
    assert FastMultiScaleRoIAlign(strides, 7)(maps, [no_boxes, no_boxes], [IMAGE] * 2).shape == (0, 5, 7, 7)
    boxes = some_boxes(3, 5)
    assert torch.equal(
        FastMultiScaleRoIAlign(strides, 7)(maps, [no_boxes, boxes], [IMAGE] * 2),
        FastMultiScaleRoIAlign(strides, 7)({name: level[1:] for name, level in maps.items()}, [boxes], [IMAGE]),
    )

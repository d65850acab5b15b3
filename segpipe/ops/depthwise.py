"""Depthwise convolutions that a processor differentiates slowly in bfloat16.

oneDNN has fast kernels in bfloat16 for depthwise convolutions of 3 x 3, but for the gradient of the input of one that strides. The others
are put down to those. On an AMD EPYC with AVX-512-BF16, 8 images, channels-last:

- The gradient of a larger kernel is that of blocks of 3 x 3 of it. 5 x 5 on 1152 channels of 6 x 6 pixels: 0.7 ms; as it is 11.7, in
  float32 3.0.
- Of a convolution that strides, the gradient of the input is taken in float32. 3 x 3 on 96 channels of 96 x 96 pixels: 1.7 ms; as it is 27.
- One that dilates by d looks at every d-th pixel. On pictures of these pixels alone, d x d for each image, it does not dilate. They have
  at least 3 pixels an axis, if need be zeros: 3 x 3 on 320 channels of 16 x 16 pixels, dilated by 12, takes 7 ms there and back, and 49 on
  pictures of 2 x 2.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_Pair = tuple[int, int]
_BLOCK = 3
"""Edge of the kernels whose gradient is fast."""


def use_fast_depthwise(network: torch.nn.Module) -> None:
    """Let the depthwise convolutions of `network` that stride, dilate or are larger than 3 x 3 compute as above, or in float32 where
    they are of another kind, whatever autocast says; changed in place. They read and give what the layers around them do; names and
    weights stay."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and _is_slow(module):
            module.__class__ = _Fast if _is_plain(module) else _float32(type(module))  # type: ignore[arg-type]


def _is_slow(conv: torch.nn.Conv2d) -> bool:
    depthwise = conv.groups == conv.in_channels > 1
    return depthwise and (max(conv.kernel_size) > _BLOCK or max(conv.stride) > 1 or max(conv.dilation) > 1)


def _is_plain(conv: torch.nn.Conv2d) -> bool:
    """Whether `depthwise` does it: a kernel of odd edges, zeros around, and an output as large as the input, but for a stride."""
    around = tuple(dilation * (edge // 2) for edge, dilation in zip(conv.kernel_size, conv.dilation, strict=True))
    return (
        type(conv) is torch.nn.Conv2d  # timm has some with a padding of their own
        and conv.out_channels == conv.groups
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and conv.padding == around
        and all(edge % 2 == 1 and edge >= _BLOCK for edge in conv.kernel_size)
        and (max(conv.stride) == 1 or max(conv.dilation) == 1)
    )


class _Fast(torch.nn.Conv2d):
    """A convolution of which `_is_plain` holds."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y = depthwise(x.bfloat16(), self.weight.bfloat16(), self.stride, self.dilation)  # type: ignore[arg-type]
            return y.to(x.dtype)


@cache
def _float32(kind: type[torch.nn.Conv2d]) -> type[torch.nn.Conv2d]:
    """A convolution of this kind that computes in float32 under autocast too."""

    def forward(self: torch.nn.Conv2d, x: Tensor, *more: Any) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return kind.forward(self, x.float(), *more).to(x.dtype)

    return type(kind.__name__, (kind,), {"forward": forward})


def depthwise(x: Tensor, weight: Tensor, stride: _Pair = (1, 1), dilation: _Pair = (1, 1)) -> Tensor:
    """A depthwise convolution, padded so that a stride of 1 keeps the size. x: (N, C, H, W); weight: (C, 1, h, w) of odd h and w."""
    if max(dilation) == 1:
        y: Tensor = _Depthwise.apply(x, weight, stride)
        return y
    weight, dilation = _within_reach(x, weight, dilation)
    height, width = x.shape[2:]
    least = (d * min(edge, _BLOCK) for d, edge in zip(dilation, weight.shape[2:], strict=True))
    more = [max(n - size, -size % d) for n, size, d in zip(least, (height, width), dilation, strict=True)]
    apart = _apart(F.pad(x, (0, more[1], 0, more[0])), dilation)
    return _together(_Depthwise.apply(apart, weight, stride), dilation)[:, :, :height, :width]


def _within_reach(x: Tensor, weight: Tensor, dilation: _Pair) -> tuple[Tensor, _Pair]:
    """The kernel without outer taps that never meet a pixel: along an axis where it dilates that far, its middle, which does not dilate."""
    for axis, (distance, size) in enumerate(zip(dilation, x.shape[2:], strict=True), 2):
        if distance >= size:
            weight = weight.narrow(axis, weight.shape[axis] // 2, 1)
    rows, columns = (d if edge > 1 else 1 for d, edge in zip(dilation, weight.shape[2:], strict=True))
    return weight, (rows, columns)


def _apart(x: Tensor, by: _Pair) -> Tensor:
    """(N, C, H, W) -> (N * rows * columns, C, H / rows, W / columns), channels-last: pictures of every so many-th pixel."""
    (count, channels, height, width), (rows, columns) = x.shape, by
    x = x.permute(0, 2, 3, 1).reshape(count, height // rows, rows, width // columns, columns, channels)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, height // rows, width // columns, channels).permute(0, 3, 1, 2)


def _together(x: Tensor, by: _Pair) -> Tensor:
    """`_apart` undone."""
    (_, channels, height, width), (rows, columns) = x.shape, by
    x = x.permute(0, 2, 3, 1).reshape(-1, rows, columns, height, width, channels)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, height * rows, width * columns, channels).permute(0, 3, 1, 2)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradients are put together from those that are fast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: _Pair) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, tuple(n // 2 for n in weight.shape[2:])
        return F.conv2d(x, weight, None, stride, ctx.padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, _ = ctx.needs_input_grad
        of_x = _of_input(gradient, x, weight, ctx.stride, ctx.padding) if needs_x else None
        return of_x, _of_weight(gradient, x, weight, ctx.stride, ctx.padding) if needs_weight else None, None


def _of_input(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    given = x.dtype
    if max(stride) > 1:
        x = torch.empty_like(x, dtype=torch.float32)  # its shape counts, its values don't
        gradient, weight = gradient.float(), weight.float()
    return _gradients(gradient, x, weight, stride, padding, of_input=True).to(given)


def _of_weight(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    channels, _, *edges = weight.shape
    if max(edges) <= _BLOCK:
        return _gradients(gradient, x, weight, stride, padding, of_input=False)
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (min(edge, _BLOCK) for edge in edges)
    height, width = ((n - 1) * step for n, step in zip(gradient.shape[2:], stride, strict=True))
    found, block = torch.empty_like(weight), weight.new_empty(channels, 1, rows, columns)
    for top in _starts(edges[0]):
        for left in _starts(edges[1]):
            under = x[:, :, top : top + height + rows, left : left + width + columns].contiguous(memory_format=layout)
            part = _gradients(gradient, under, block, stride, (0, 0), of_input=False)
            found[:, :, top : top + rows, left : left + columns] = part
    return found


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair, of_input: bool) -> Tensor:
    """torch's own, of the input or of the weight."""
    found: list[Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), [of_input, not of_input, False]
    )
    return found[0 if of_input else 1]


def _starts(edge: int) -> list[int]:
    """Where blocks begin that cover an edge; the last two may overlap."""
    return [max(0, min(start, edge - _BLOCK)) for start in range(0, edge, _BLOCK)]

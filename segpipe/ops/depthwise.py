"""Depthwise convolutions whose gradients a CPU computes slowly in bfloat16.

oneDNN has fast kernels in bfloat16 for depthwise convolutions of 3 x 3, except for the gradient of the input of a strided one. All
others are reduced to those. On an AMD EPYC with AVX-512-BF16, 8 images, channels-last:

- The gradient of a larger kernel is that of its blocks of 3 x 3. 5 x 5 on 1152 channels of 6 x 6 pixels: 0.7 ms, instead of 11.7 by
  default and 3.0 in float32.
- For a strided convolution, the gradient of the input is computed in float32. 3 x 3 on 96 channels of 96 x 96 pixels: 1.7 ms instead of
  27.
- A convolution dilated by d reads every d-th pixel. On d x d images made of these pixels, it is not dilated. These have at least 3 pixels
  along each axis, padded with zeros if needed: 3 x 3 on 320 channels of 16 x 16 pixels, dilated by 12, takes 7 ms forward and backward,
  and 49 on images of 2 x 2.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segpipe.ops.swap import swap_classes

_Pair = tuple[int, int]
_BLOCK = 3
"""Edge of the kernels whose gradient is fast."""


def use_fast_depthwise(network: torch.nn.Module) -> None:
    """Replace the depthwise convolutions that stride, dilate or are larger than 3 x 3, in place.

    They compute as the docstring of this module describes or, if they are of a special kind, in float32, even under autocast. The types
    of their inputs and outputs stay the same.
    """
    swap_classes(network, _replacement_for)


def _replacement_for(module: torch.nn.Module) -> type[torch.nn.Conv2d] | None:
    if not isinstance(module, torch.nn.Conv2d) or not _is_slow(module):
        return None
    return _FastDepthwise if _is_supported(module) else _float32(type(module))  # type: ignore[arg-type]  # types are hashable


def _is_slow(conv: torch.nn.Conv2d) -> bool:
    depthwise = conv.groups == conv.in_channels > 1
    return depthwise and (max(conv.kernel_size) > _BLOCK or max(conv.stride) > 1 or max(conv.dilation) > 1)


def _is_supported(conv: torch.nn.Conv2d) -> bool:
    """Return whether `depthwise` supports it: odd kernel edges, zero padding, and an output as large as the input, apart from a stride."""
    same_padding = tuple(dilation * (edge // 2) for edge, dilation in zip(conv.kernel_size, conv.dilation, strict=True))
    return (
        type(conv) is torch.nn.Conv2d  # timm has subclasses with their own padding
        and conv.out_channels == conv.groups
        and conv.bias is None
        and conv.padding_mode == "zeros"
        and conv.padding == same_padding
        and all(edge % 2 == 1 and edge >= _BLOCK for edge in conv.kernel_size)
        and (max(conv.stride) == 1 or max(conv.dilation) == 1)
    )


class _FastDepthwise(torch.nn.Conv2d):
    """A convolution for which `_is_supported` holds."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y = depthwise(x.bfloat16(), self.weight.bfloat16(), self.stride, self.dilation)  # type: ignore[arg-type]
            return y.to(x.dtype)


@cache
def _float32(conv_class: type[torch.nn.Conv2d]) -> type[torch.nn.Conv2d]:
    """Return a subclass of a convolution that computes in float32, even under autocast."""

    def forward(self: torch.nn.Conv2d, x: Tensor, *more: Any) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return conv_class.forward(self, x.float(), *more).to(x.dtype)

    return type(conv_class.__name__, (conv_class,), {"forward": forward})


def depthwise(x: Tensor, weight: Tensor, stride: _Pair = (1, 1), dilation: _Pair = (1, 1)) -> Tensor:
    """Compute a depthwise convolution with fast gradients, padded so that a stride of 1 keeps the size.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, h, w) with odd h and w.
        stride: along height and width; 1 if it dilates.
        dilation: along height and width.
    """
    if max(dilation) == 1:
        y: Tensor = _Depthwise.apply(x, weight, stride)
        return y
    weight, dilation = _drop_unreachable_taps(x, weight, dilation)
    height, width = x.shape[2:]
    least = (d * min(edge, _BLOCK) for d, edge in zip(dilation, weight.shape[2:], strict=True))
    padding = [max(n - size, -size % d) for n, size, d in zip(least, (height, width), dilation, strict=True)]
    parts = _split_pixels(F.pad(x, (0, padding[1], 0, padding[0])), dilation)
    return _join_pixels(_Depthwise.apply(parts, weight, stride), dilation)[:, :, :height, :width]


def _drop_unreachable_taps(x: Tensor, weight: Tensor, dilation: _Pair) -> tuple[Tensor, _Pair]:
    """Return the kernel without outer taps that never meet a pixel: along such an axis only its middle, which does not dilate."""
    for axis, (distance, size) in enumerate(zip(dilation, x.shape[2:], strict=True), 2):
        if distance >= size:
            weight = weight.narrow(axis, weight.shape[axis] // 2, 1)
    rows, columns = (d if edge > 1 else 1 for d, edge in zip(dilation, weight.shape[2:], strict=True))
    return weight, (rows, columns)


def _split_pixels(x: Tensor, steps: _Pair) -> Tensor:
    """Split images into images of every n-th pixel: (N, C, H, W) -> (N * rows * columns, C, H / rows, W / columns), channels-last."""
    (count, channels, height, width), (rows, columns) = x.shape, steps
    x = x.permute(0, 2, 3, 1).reshape(count, height // rows, rows, width // columns, columns, channels)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, height // rows, width // columns, channels).permute(0, 3, 1, 2)


def _join_pixels(x: Tensor, steps: _Pair) -> Tensor:
    """Undo `_split_pixels`."""
    (_, channels, height, width), (rows, columns) = x.shape, steps
    x = x.permute(0, 2, 3, 1).reshape(-1, rows, columns, height, width, channels)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, height * rows, width * columns, channels).permute(0, 3, 1, 2)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradients are composed of fast ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: _Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, tuple(n // 2 for n in weight.shape[2:])
        return F.conv2d(x, weight, None, stride, ctx.padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, _ = ctx.needs_input_grad
        x_gradient = _input_gradient(gradient, x, weight, ctx.stride, ctx.padding) if needs_x else None
        weight_gradient = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding) if needs_weight else None
        return x_gradient, weight_gradient, None


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    dtype = x.dtype
    if max(stride) > 1:
        x = torch.empty_like(x, dtype=torch.float32)  # only its shape is used
        gradient, weight = gradient.float(), weight.float()
    return _torch_gradient(gradient, x, weight, stride, padding, of_input=True).to(dtype)


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
    channels, _, *edges = weight.shape
    if max(edges) <= _BLOCK:
        return _torch_gradient(gradient, x, weight, stride, padding, of_input=False)
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (min(edge, _BLOCK) for edge in edges)
    height, width = ((n - 1) * step for n, step in zip(gradient.shape[2:], stride, strict=True))
    result, block = torch.empty_like(weight), weight.new_empty(channels, 1, rows, columns)
    for top in _block_starts(edges[0]):
        for left in _block_starts(edges[1]):
            window = x[:, :, top : top + height + rows, left : left + width + columns].contiguous(memory_format=layout)
            part = _torch_gradient(gradient, window, block, stride, (0, 0), of_input=False)
            result[:, :, top : top + rows, left : left + columns] = part
    return result


def _torch_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair, of_input: bool
) -> Tensor:
    """Return torch's own gradient, of the input or of the weight."""
    gradients: list[Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), [of_input, not of_input, False]
    )
    return gradients[0 if of_input else 1]


def _block_starts(edge: int) -> list[int]:
    """Return where blocks start that cover an edge; the last two may overlap."""
    return [max(0, min(start, edge - _BLOCK)) for start in range(0, edge, _BLOCK)]

"""Pooling to a fixed number of cells (PSPNet, UPerNet) in operators of ONNX, which has none for it if the image size is free."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

_adaptive_avg_pool2d = F.adaptive_avg_pool2d


@contextlib.contextmanager
def exportable_pooling() -> Iterator[None]:
    """Within this context, all networks pool by matrices, which gives the same numbers.

    It is for the time of an export, in one thread. A function is replaced and not a class, because networks may call it directly.
    """
    with mock.patch.object(F, "adaptive_avg_pool2d", pool_by_matrix):
        yield


def pool_by_matrix(x: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Compute ``adaptive_avg_pool2d`` by two products with matrices that depend on the input's size.

    Args:
        x: (N, C, H, W), float.
        output_size: rows and columns of the result; one number for both.

    Returns:
        (N, C, rows, columns).
    """
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    if rows == columns == 1:
        return _adaptive_avg_pool2d(x, 1)  # ONNX has an operator for that
    return _averages(x.shape[2], rows, x) @ x @ _averages(x.shape[3], columns, x).transpose(0, 1)


def _averages(size: int, cells: int, like: Tensor) -> Tensor:
    """Return a matrix (cells, size): row i averages the pixels from floor(i size / cells) to ceil((i + 1) size / cells) - 1."""
    cell = torch.arange(cells, device=like.device)[:, None]
    start = torch.div(cell * size, cells, rounding_mode="floor")
    end = torch.div((cell + 1) * size + cells - 1, cells, rounding_mode="floor")
    pixel = torch.arange(size, device=like.device)[None]
    inside = ((pixel >= start) & (pixel < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)

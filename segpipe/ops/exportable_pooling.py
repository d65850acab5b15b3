"""Pooling to a fixed number of cells (PSPNet, UPerNet), in terms that ONNX has: it knows no such operator for a free size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

_pool = F.adaptive_avg_pool2d


@contextlib.contextmanager
def exportable_pooling() -> Iterator[None]:
    """While this holds, networks pool by matrices, which gives the same numbers; for the time of an export, in one thread."""
    with mock.patch.object(F, "adaptive_avg_pool2d", pool_by_matrix):
        yield


def pool_by_matrix(x: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """``adaptive_avg_pool2d`` as two products with matrices that are made from the input's size.

    x: (N, C, H, W), float. (N, C, rows, columns).
    """
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    if rows == columns == 1:
        return _pool(x, 1)  # ONNX has that
    return _averages(x.shape[2], rows, x) @ x @ _averages(x.shape[3], columns, x).transpose(0, 1)


def _averages(size: int, cells: int, like: Tensor) -> Tensor:
    """(cells, size): row i averages the places from floor(i size / cells) to ceil((i + 1) size / cells) - 1."""
    cell = torch.arange(cells, device=like.device)[:, None]
    start = torch.div(cell * size, cells, rounding_mode="floor")
    end = torch.div((cell + 1) * size + cells - 1, cells, rounding_mode="floor")
    place = torch.arange(size, device=like.device)[None]
    inside = ((place >= start) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)

"""A batch in parts, which are computed one after another if memory is short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def split_batch(images: Tensor, labels: Any, count: int) -> Iterator[tuple[Tensor, Any, float]]:
    """Yield the parts of a batch, of nearly equal size.

    Args:
        images: (N, ...).
        labels: of the images: a tensor or a list.
        count: the number of parts.

    Yields:
        Images, their labels, and their share of all images.
    """
    if count == 1:
        yield images, labels, 1.0
        return
    start = 0
    for part in images.tensor_split(count):
        stop = start + len(part)
        yield part, labels[start:stop], len(part) / len(images)
        start = stop

"""A batch in parts, computed one after another where memory is short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def split_batch(images: Tensor, known: Any, count: int) -> Iterator[tuple[Tensor, Any, float]]:
    """A batch in `count` parts of nearly equal size: images, what is known of them (a tensor or a list), share of the images."""
    if count == 1:
        yield images, known, 1.0
        return
    start = 0
    for part in images.tensor_split(count):
        stop = start + len(part)
        yield part, known[start:stop], len(part) / len(images)
        start = stop

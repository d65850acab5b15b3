"""Images larger than a tile, in overlapping tiles; memory is bounded by one row of tiles, not by the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Predict = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along an axis: evenly `tile - overlap` apart, the last one flush with the end."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def tile_weights(tile: int) -> npt.NDArray[np.float32]:
    """Weights (tile, tile) that fall towards the edge, where a network sees least: a triangle along each axis, never 0."""
    ramp = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).astype(np.float32)
    return np.outer(ramp, ramp) / ramp.max() ** 2


def predict_tiled(
    chw: npt.NDArray[np.float32], predict: Predict, n_classes: int, tile: int, overlap: int
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield ``(first_row, probabilities)`` bands from top to bottom that together cover the image once.

    chw: (C, H, W) with H and W at least `tile`. predict: (1, C, tile, tile) -> (1, n_classes, tile, tile) probabilities.
    Where tiles overlap, their probabilities are averaged with `window` as weights.
    """
    _, height, width = chw.shape
    weights = tile_weights(tile)
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    total = np.zeros((n_classes, tile, width), np.float32)
    weight = np.zeros((tile, width), np.float32)
    for index, top in enumerate(rows):
        for left in columns:
            piece = np.ascontiguousarray(chw[None, :, top : top + tile, left : left + tile])
            total[:, :, left : left + tile] += predict(piece)[0] * weights
            weight[:, left : left + tile] += weights
        final = (rows[index + 1] if index + 1 < len(rows) else height) - top  # rows that no later tile touches
        yield top, total[:, :final] / weight[:final]
        total[:, : tile - final], weight[: tile - final] = total[:, final:].copy(), weight[final:].copy()
        total[:, tile - final :], weight[tile - final :] = 0, 0

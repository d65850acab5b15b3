"""Predict large images in overlapping tiles. Memory is bounded by one row of tiles, not by the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Predict = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the positions along an axis at which tiles start: `tile - overlap` apart, and the last tile ends with the axis.

    Args:
        length: Length of the axis.
        tile: Length of a tile.
        overlap: Minimum overlap of neighbouring tiles.
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def tile_weights(tile: int) -> npt.NDArray[np.float32]:
    """Return weights (tile, tile) that fall linearly towards the edges, where a network sees least context. They are never 0."""
    ramp = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).astype(np.float32)
    return np.outer(ramp, ramp) / ramp.max() ** 2


def predict_tiled(
    chw: npt.NDArray[np.float32], predict: Predict, n_classes: int, tile: int, overlap: int
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Predict an image tile by tile. Where tiles overlap, their predictions are averaged with `tile_weights`.

    Args:
        chw: Normalised image, (C, H, W), with H and W at least `tile`.
        predict: Maps a batch (1, C, tile, tile) to values (1, n_classes, tile, tile), float32.
        n_classes: Number of channels of these values.
        tile: Edge length of a tile in pixels.
        overlap: Minimum overlap of neighbouring tiles in pixels.

    Yields:
        Bands ``(first_row, values)``, with values (n_classes, rows, W), from top to bottom; together they cover each row once.
    """
    _, height, width = chw.shape
    weights = tile_weights(tile)
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    total = np.zeros((n_classes, tile, width), np.float32)
    weight = np.zeros((tile, width), np.float32)
    for index, top in enumerate(rows):
        for left in columns:
            crop = np.ascontiguousarray(chw[None, :, top : top + tile, left : left + tile])
            total[:, :, left : left + tile] += predict(crop)[0] * weights
            weight[:, left : left + tile] += weights
        complete = (rows[index + 1] if index + 1 < len(rows) else height) - top  # rows that no later tile changes
        yield top, total[:, :complete] / weight[:complete]
        total[:, : tile - complete], weight[: tile - complete] = total[:, complete:].copy(), weight[complete:].copy()
        total[:, tile - complete :], weight[tile - complete :] = 0, 0

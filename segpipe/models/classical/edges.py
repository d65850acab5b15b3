"""Edges: the image is flooded from a grid of its flattest places, and regions meet where the gradient is steep.

Watershed on the gradient (Beucher, Lantuéjoul 1979; Vincent, Soille 1991, doi:10.1109/34.87344).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from segpipe.models.classical.contract import Floats
from segpipe.models.classical.region_model import RegionModel, Regions, RegionsConfig


class EdgesConfig(RegionsConfig):
    """Settings of the `edges` family."""

    spacing: int = Field(12, ge=4, le=200)
    """Pixels between two seeds: about the edge of a region where the image is plain."""


class Edges(RegionModel):
    """Regions between edges."""

    name: ClassVar[str] = "edges"
    config_type: ClassVar[type[RegionsConfig]] = EdgesConfig

    @staticmethod
    def cut(colours: Floats, edges: Floats, config: EdgesConfig, seed: int) -> Regions:
        """Seed the flattest pixel of each cell of a grid and flood the gradient from there."""
        from skimage.segmentation import watershed

        flooded = watershed(edges, _seeds(edges, config.spacing))
        return np.unique(flooded, return_inverse=True)[1].reshape(edges.shape)  # type: ignore[no-any-return]


def _seeds(edges: Floats, spacing: int) -> Regions:
    """(H, W), 1..n at the flattest pixel of each cell, 0 elsewhere."""
    height, width = edges.shape
    rows, columns = -(-height // spacing), -(-width // spacing)
    padded = np.pad(
        edges, ((0, rows * spacing - height), (0, columns * spacing - width)), constant_values=np.float32(np.inf)
    )
    cells = padded.reshape(rows, spacing, columns, spacing).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    inside = cells.argmin(2)
    seeds = np.zeros(edges.shape, np.int64)
    y = np.arange(rows)[:, None] * spacing + inside // spacing
    x = np.arange(columns)[None] * spacing + inside % spacing
    seeds[y, x] = np.arange(1, rows * columns + 1).reshape(rows, columns)
    return seeds

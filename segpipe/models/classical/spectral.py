"""Spectral: superpixels, joined where they look alike, are parted by normalised cuts of their graph.

Shi, Malik 2000, "Normalized cuts and image segmentation" (doi:10.1109/34.868688), on superpixels of SLIC (Achanta et al. 2012,
doi:10.1109/TPAMI.2012.120).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from segpipe.models.classical.contract import Floats
from segpipe.models.classical.region_model import RegionModel, Regions, RegionsConfig

_COMPACTNESS = 0.1
"""Of superpixels, for colours that SLIC has scaled to 0..1: small, so that they follow outlines."""


class SpectralConfig(RegionsConfig):
    """Settings of the `spectral` family."""

    superpixels: int = Field(200, ge=4, le=2000)
    """Nodes of the graph. The eigenvectors take time by the square of it and more."""
    contrast: float = Field(10.0, gt=0, le=200)
    """Difference of colour (CIELAB, or 0..100) at which two neighbours are but 1/e alike."""
    threshold: float = Field(0.5, gt=0, le=2)
    """A part is cut further while the cut costs less than this; the larger, the more regions."""


class Spectral(RegionModel):
    """Regions that are alike within."""

    name: ClassVar[str] = "spectral"
    config_type: ClassVar[type[RegionsConfig]] = SpectralConfig

    @staticmethod
    def cut(colours: Floats, edges: Floats, config: SpectralConfig, seed: int) -> Regions:
        """SLIC, a graph of neighbours weighted by likeness, normalised cuts."""
        from skimage.graph import cut_normalized
        from skimage.segmentation import slic

        superpixels = slic(
            colours.astype(np.float64),
            config.superpixels,
            compactness=_COMPACTNESS,
            max_num_iter=5,
            convert2lab=False,
            channel_axis=2,
            start_label=0,
        ).astype(np.int64)
        if superpixels.max() < 2:
            return superpixels
        parts = cut_normalized(superpixels, _graph(superpixels, colours, config.contrast), config.threshold, rng=seed)
        return np.unique(parts, return_inverse=True)[1].reshape(parts.shape)  # type: ignore[no-any-return]


def _graph(superpixels: Regions, colours: Floats, contrast: float) -> object:
    """Neighbouring superpixels (by pixels that share an edge), as alike as ``exp(-(difference / contrast) ** 2)``."""
    from skimage.graph import RAG

    flat, size = superpixels.ravel(), np.bincount(superpixels.ravel())
    mean = np.stack([np.bincount(flat, c.ravel()) / size for c in np.moveaxis(colours.astype(np.float64), 2, 0)], 1)
    pairs = np.concatenate(
        [
            np.stack([superpixels[:, :-1].ravel(), superpixels[:, 1:].ravel()], 1),
            np.stack([superpixels[:-1].ravel(), superpixels[1:].ravel()], 1),
        ]
    )
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    squares = ((mean[pairs[:, 0]] - mean[pairs[:, 1]]) ** 2).sum(1)
    likeness = np.maximum(np.exp(-squares / contrast**2), 1e-6)  # a graph in one piece
    graph = RAG()
    for node in range(len(size)):
        graph.add_node(node, labels=[node])
    for (a, b), weight in zip(pairs.tolist(), likeness.tolist(), strict=True):
        graph.add_edge(a, b, weight=weight)
    return graph

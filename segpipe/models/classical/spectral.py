"""Spectral: superpixels form a graph by their similarity, and normalised cuts divide it into regions.

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
"""Compactness of superpixels, for colours that SLIC has scaled to 0..1: small, so that they follow outlines."""
_SLIC_ITERATIONS = 5
_MIN_SIMILARITY = 1e-6
"""Smallest weight of an edge, which keeps the graph connected."""


class SpectralConfig(RegionsConfig):
    """Settings of the `spectral` family."""

    superpixels: int = Field(200, ge=4, le=2000)
    """Number of nodes of the graph. The time for the eigenvectors grows at least with its square."""
    contrast: float = Field(10.0, gt=0, le=200)
    """Difference of colour (in CIELAB, or in 0..100) at which the similarity of two neighbours falls to 1/e."""
    threshold: float = Field(0.5, gt=0, le=2)
    """A part is divided further while the cost of the cut is below this: the larger, the more regions."""


class Spectral(RegionModel):
    """A model whose regions are uniform."""

    name: ClassVar[str] = "spectral"
    config_type: ClassVar[type[RegionsConfig]] = SpectralConfig

    @staticmethod
    def cut(colours: Floats, edges: Floats, config: SpectralConfig, seed: int) -> Regions:
        """Cut a graph of SLIC superpixels, weighted by similarity. See `RegionModel.cut`."""
        from skimage.graph import cut_normalized
        from skimage.segmentation import slic

        superpixels = slic(
            colours.astype(np.float64),
            config.superpixels,
            compactness=_COMPACTNESS,
            max_num_iter=_SLIC_ITERATIONS,
            convert2lab=False,
            channel_axis=2,
            start_label=0,
        ).astype(np.int64)
        if superpixels.max() < 2:
            return superpixels
        graph = _similarity_graph(superpixels, colours, config.contrast)
        parts = cut_normalized(superpixels, graph, config.threshold, rng=seed)
        return np.unique(parts, return_inverse=True)[1].reshape(parts.shape)


def _similarity_graph(superpixels: Regions, colours: Floats, contrast: float) -> object:
    """Return a graph of superpixels that share a pixel edge, with weights ``exp(-(difference / contrast) ** 2)``."""
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
    squared_differences = ((mean[pairs[:, 0]] - mean[pairs[:, 1]]) ** 2).sum(1)
    similarity = np.maximum(np.exp(-squared_differences / contrast**2), _MIN_SIMILARITY)
    graph = RAG()
    for node in range(len(size)):
        graph.add_node(node, labels=[node])
    for (a, b), weight in zip(pairs.tolist(), similarity.tolist(), strict=True):
        graph.add_edge(a, b, weight=weight)
    return graph

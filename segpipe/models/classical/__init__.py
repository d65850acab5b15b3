"""Models without a network, fitted once to the training split. They are the baselines that a network has to beat."""

from segpipe.models.classical.contract import Classical, Normalise
from segpipe.models.classical.edges import Edges, EdgesConfig
from segpipe.models.classical.kmeans import KMeans, KMeansConfig
from segpipe.models.classical.spectral import Spectral, SpectralConfig

__all__ = ["Classical", "Edges", "EdgesConfig", "KMeans", "KMeansConfig", "Normalise", "Spectral", "SpectralConfig"]

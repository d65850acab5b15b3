"""K-means on colour: each cluster of pixels gets the class that most of its training pixels have.

k-means (Lloyd, "Least squares quantization in PCM", 1982), fitted in mini batches (Sculley, "Web-scale k-means clustering",
WWW 2010), on the colour of a pixel and the colour of its neighbourhood. Its scores show what colour alone predicts: a network that
is not better has not learned any shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import DataError
from segpipe.models.classical.contract import (
    UNSEEN_CLASS_SCORE,
    Normalise,
    check_batch,
    intensity_window,
    load_tensors,
    no_labelled_pixels,
    save_tensors,
    to_colours,
    wrong_file,
)
from segpipe.samples import Sample

_TENSORS = ("centroids", "cluster_class", "low", "high")

_BLOCK_PIXELS = 1 << 16
"""Number of pixels whose distances to all centroids are in memory at once."""
_MIN_VARIANCE = 1e-6


class KMeansConfig(BaseModel):
    """Settings of the `kmeans` family."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    clusters: int = Field(64, ge=2, le=256)
    """Number of clusters; at least the number of classes is used."""
    smoothing: float = Field(3.0, gt=0, le=50)
    """Standard deviation, in pixels, of the Gaussian that averages the colour of the neighbourhood."""
    pixels: int = Field(200_000, ge=1000, le=5_000_000)
    """Number of training pixels, drawn at random, that the clusters are fitted to; this bounds memory."""
    pixels_per_image: int = Field(5000, ge=10, le=1_000_000)
    """Maximum number of these pixels from one image."""


class KMeans:
    """A fitted k-means model; implements `Classical`. The features of a pixel are its own colour and the smoothed one.

    Args:
        centroids: Centres of the clusters, (clusters, 2 C), float32.
        cluster_class: Class id of each cluster, (clusters,).
        low: Lower end of the window of normalised values, (C,), see `intensity_window`.
        high: Upper end of the window, (C,).
        n_classes: Number of classes.
        smoothing: Standard deviation of the smoothing in pixels.
        variance: Mean variance of a feature within its cluster.
    """

    name = "kmeans"

    def __init__(
        self,
        centroids: npt.NDArray[np.float32],
        cluster_class: npt.NDArray[np.int64],
        low: npt.NDArray[np.float32],
        high: npt.NDArray[np.float32],
        n_classes: int,
        smoothing: float,
        variance: float,
    ) -> None:
        self.centroids, self.cluster_class, self.low, self.high = centroids, cluster_class, low, high
        self.n_classes, self.smoothing, self.variance = n_classes, smoothing, variance

    @classmethod
    def fit(
        cls,
        samples: Iterable[Sample],
        normalise: Normalise,
        n_classes: int,
        seed: int = 0,
        config: KMeansConfig | None = None,
    ) -> KMeans:
        """Fit to labelled samples. The same samples and seed give the same model.

        Args:
            samples: Labelled samples, read once, one image in memory at a time.
            normalise: Maps an image to the engine's input.
            n_classes: Number of classes.
            seed: Seed of all random choices.
            config: Settings; None for the defaults.

        Raises:
            DataError: No sample has a labelled pixel.
        """
        from sklearn.cluster import MiniBatchKMeans
        from threadpoolctl import threadpool_limits  # installed with scikit-learn

        config = config or KMeansConfig()
        channels, labels = _draw_pixels(samples, normalise, n_classes, seed, config)
        low, high = intensity_window(channels[:, : channels.shape[1] // 2])
        features = _to_features(channels, low, high)
        clusters = min(max(config.clusters, n_classes), len(features))
        with threadpool_limits(1):  # the number of threads changes the order of sums, and machines would differ
            fitted = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, max_iter=50, random_state=seed).fit(features)
        centroids = fitted.cluster_centers_.astype(np.float32)
        nearest = _squared_distances(features, centroids).argmin(1)
        votes = np.bincount(nearest * n_classes + labels, minlength=clusters * n_classes).reshape(clusters, n_classes)
        # An empty cluster gets the class that is the most frequent overall.
        cluster_class = np.where(votes.sum(1) > 0, votes.argmax(1), votes.sum(0).argmax()).astype(np.int64)
        variance = max(float(((features - centroids[nearest]) ** 2).mean()), _MIN_VARIANCE)
        return cls(centroids, cluster_class, low, high, n_classes, config.smoothing, variance)

    def __call__(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute the scores of a normalised batch.

        The score of a class is minus half the squared distance to its nearest centroid, in units of the variance within clusters. The
        softmax of the scores is the posterior under Gaussians of equal, isotropic variance.

        Args:
            batch: (N, C, H, W) or (N, C, D, H, W).

        Returns:
            Scores (N, n_classes, ...), float32, of the same spatial shape.
        """
        batch = check_batch(batch, len(self.low), spatial_dims=(2, 3))
        count, _, *shape = batch.shape
        pixels = math.prod(shape)
        scores = np.full((count, self.n_classes, pixels), UNSEEN_CLASS_SCORE, np.float32)
        for image, image_scores in zip(batch, scores, strict=True):
            channels = _with_neighbourhood(image, self.smoothing)
            for start in range(0, pixels, _BLOCK_PIXELS):
                features = _to_features(channels[start : start + _BLOCK_PIXELS], self.low, self.high)
                cluster_scores = _squared_distances(features, self.centroids) / np.float32(-2 * self.variance)
                for cluster, class_id in enumerate(self.cluster_class):
                    block = image_scores[class_id, start : start + _BLOCK_PIXELS]
                    np.maximum(block, cluster_scores[:, cluster], out=block)
        return scores.reshape(count, self.n_classes, *shape)

    def save(self, path: Path) -> None:
        """Write the model as safetensors, atomically. The same model gives the same bytes."""
        metadata = {"n_classes": self.n_classes, "smoothing": self.smoothing, "variance": self.variance}
        save_tensors(path, self.name, metadata, {key: getattr(self, key) for key in _TENSORS})

    @classmethod
    def load(cls, path: Path) -> KMeans:
        """Read a file that `save` wrote.

        Raises:
            DataError: The file does not hold a k-means model.
        """
        metadata, arrays = load_tensors(path, cls.name, _TENSORS)
        tensors: dict[str, Any] = {**arrays}
        clusters, channels = len(tensors["centroids"]), len(tensors["low"])
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        expected = {
            "centroids": (clusters, 2 * channels),
            "cluster_class": (clusters,),
            "low": (channels,),
            "high": (channels,),
        }
        if shapes != expected or set(metadata) != {"n_classes", "smoothing", "variance"}:
            raise wrong_file(path, cls.name, f"{shapes}, {metadata}")
        if not ((tensors["cluster_class"] >= 0) & (tensors["cluster_class"] < metadata["n_classes"])).all():
            raise DataError(
                "has clusters of unknown classes",
                where=path,
                expected=f"class ids 0..{metadata['n_classes'] - 1}",
                fix="train it again: segpipe train CANDIDATE",
            )
        return cls(**tensors, **metadata)


def _draw_pixels(
    samples: Iterable[Sample], normalise: Normalise, n_classes: int, seed: int, config: KMeansConfig
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Draw at most `config.pixels` labelled pixels; return their channels and smoothed channels, (n, 2 C), and classes, (n,).

    Each candidate pixel gets a random rank, and those with the lowest ranks are drawn, so that images late in the stream have the same
    chance.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    n_pixels = 0
    for sample in samples:
        if sample.labels is None:
            continue
        labels = sample.labels.ravel()
        labelled = np.flatnonzero(labels < n_classes)
        drawn = rng.choice(labelled, min(config.pixels_per_image, labelled.size), replace=False)
        channels = _with_neighbourhood(normalise(sample.image), config.smoothing)[drawn]
        parts.append((rng.random(drawn.size), channels, labels[drawn]))
        n_pixels += drawn.size
        if n_pixels > 2 * config.pixels:
            parts = [_lowest_ranks(parts, config.pixels)]
            n_pixels = config.pixels
    if not n_pixels:
        raise no_labelled_pixels()
    _, channels, classes = _lowest_ranks(parts, config.pixels)
    return channels, classes.astype(np.int64)


def _lowest_ranks(parts: list[tuple[npt.NDArray[Any], ...]], count: int) -> tuple[npt.NDArray[Any], ...]:
    ranks, channels, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ranks, kind="stable")[:count]
    return ranks[order], channels[order], labels[order]


def _with_neighbourhood(image: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """Return the channels of each pixel, then those of the Gaussian-smoothed image: (C, [D,] H, W) -> (pixels, 2 C)."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image, sigma=(0, *(sigma,) * (image.ndim - 1)), mode="nearest", truncate=3.0)
    return np.concatenate([image, smooth]).reshape(2 * len(image), -1).T


def _to_features(
    channels: npt.NDArray[np.float32], low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Convert both halves of normalised channels, (n, 2 C), to colours, (n, 2 C), see `to_colours`."""
    return to_colours(channels.reshape(len(channels), 2, -1), low, high).reshape(len(channels), -1)


def _squared_distances(
    features: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the squared distance of each pixel to each centroid, (n, clusters)."""
    squares = (features**2).sum(1)[:, None] - 2 * features @ centroids.T + (centroids**2).sum(1)
    return np.maximum(squares, 0)

"""Clusters of colour, each given the class that most of its training pixels have.

k-means (Lloyd, "Least squares quantization in PCM", 1982), fitted in mini batches (Sculley, "Web-scale k-means clustering",
WWW 2010), on the colour of a pixel and on the colour of its neighbourhood. What it reaches is what colour alone tells; a
network that does no better has learned nothing of shape.
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

_BLOCK = 1 << 16
"""Pixels whose distances to all centroids are held at once."""


class KMeansConfig(BaseModel):
    """Settings of the `kmeans` family."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    clusters: int = Field(64, ge=2, le=256)
    """How many colours the images are reduced to; never fewer than there are classes."""
    smoothing: float = Field(3.0, gt=0, le=50)
    """Standard deviation, in pixels, of the Gaussian that makes the neighbourhood's colour."""
    pixels: int = Field(200_000, ge=1000, le=5_000_000)
    """How many training pixels the clusters are fitted on, drawn at random; this bounds memory."""
    pixels_per_image: int = Field(5000, ge=10, le=1_000_000)
    """How many of them an image may give at the most."""


class KMeans:
    """A fitted baseline; a `Classical`. A pixel's features are its own colour and the smoothed one.

    low, high: (C,), the window of normalised values.
    centroids: (clusters, 2 C), float32. cluster_class: (clusters,), class ids. variance: of a feature within its cluster.
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
        """Fit on labelled samples, read once, one image in memory at a time. The same samples and seed give the same result.

        Raises DataError where there is not a single labelled pixel.
        """
        from sklearn.cluster import MiniBatchKMeans
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # a part of every scikit-learn installation

        config = config or KMeansConfig()
        channels, labels = _draw_pixels(samples, normalise, n_classes, seed, config)
        own = channels[:, : channels.shape[1] // 2]
        low, high = intensity_window(own)
        features = _to_features(channels, low, high)
        clusters = min(max(config.clusters, n_classes), len(features))
        with threadpool_limits(1):  # sums whose order depends on the number of threads would differ between machines
            fitted = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, max_iter=50, random_state=seed).fit(features)
        centroids = fitted.cluster_centers_.astype(np.float32)
        nearest = _distances(features, centroids).argmin(1)
        votes = np.bincount(nearest * n_classes + labels, minlength=clusters * n_classes).reshape(clusters, n_classes)
        # An empty cluster has no say: it takes the class that is the most frequent overall.
        winner = np.where(votes.sum(1) > 0, votes.argmax(1), votes.sum(0).argmax())
        variance = float(((features - centroids[nearest]) ** 2).mean())
        return cls(centroids, winner.astype(np.int64), low, high, n_classes, config.smoothing, max(variance, 1e-6))

    def __call__(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, C, H, W) or (N, C, D, H, W), normalised -> scores (N, n_classes, ...), of the same size: minus half the squared
        distance to the nearest centroid of each class, in units of the variance within clusters. Their softmax is the
        posterior under equal round Gaussians.
        """
        batch = check_batch(batch, len(self.low), axes=(2, 3))
        count, _, *shape = batch.shape
        pixels = math.prod(shape)
        scores = np.full((count, self.n_classes, pixels), UNSEEN_CLASS_SCORE, np.float32)
        for image, out in zip(batch, scores, strict=True):
            channels = _with_neighbourhood(image, self.smoothing)
            for start in range(0, pixels, _BLOCK):
                features = _to_features(channels[start : start + _BLOCK], self.low, self.high)
                near = _distances(features, self.centroids) / np.float32(-2 * self.variance)
                for cluster, class_id in enumerate(self.cluster_class):
                    part = out[class_id, start : start + _BLOCK]
                    np.maximum(part, near[:, cluster], out=part)
        return scores.reshape(count, self.n_classes, *shape)

    def save(self, path: Path) -> None:
        """Write the baseline as safetensors, atomically; the same baseline gives the same bytes."""
        about = {"n_classes": self.n_classes, "smoothing": self.smoothing, "variance": self.variance}
        save_tensors(path, self.name, about, {key: getattr(self, key) for key in _TENSORS})

    @classmethod
    def load(cls, path: Path) -> KMeans:
        """Read what `save` wrote; a DataError where the file is anything else."""
        about, arrays = load_tensors(path, cls.name, _TENSORS)
        tensors: dict[str, Any] = {**arrays}
        clusters, channels = len(tensors["centroids"]), len(tensors["low"])
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        expected = {
            "centroids": (clusters, 2 * channels),
            "cluster_class": (clusters,),
            "low": (channels,),
            "high": (channels,),
        }
        if shapes != expected or set(about) != {"n_classes", "smoothing", "variance"}:
            raise wrong_file(path, cls.name, f"{shapes}, {about}")
        if not ((tensors["cluster_class"] >= 0) & (tensors["cluster_class"] < about["n_classes"])).all():
            raise DataError(
                "names classes that there are not",
                where=path,
                expected=f"0..{about['n_classes'] - 1}",
                fix="train it anew: segpipe train CANDIDATE",
            )
        return cls(**tensors, **about)


def _draw_pixels(
    samples: Iterable[Sample], normalise: Normalise, n_classes: int, seed: int, config: KMeansConfig
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """At most `config.pixels` labelled pixels: their channels and smoothed channels, (n, 2 C), and classes, (n,).

    Every drawn pixel gets a random rank, and the lowest ranks stay, so that an image late in the stream has the same chance.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    kept: list[tuple[npt.NDArray[Any], ...]] = []
    held = 0
    for sample in samples:
        if sample.labels is None:
            continue
        flat = sample.labels.ravel()
        counted = np.flatnonzero(flat < n_classes)
        chosen = rng.choice(counted, min(config.pixels_per_image, counted.size), replace=False)
        channels = _with_neighbourhood(normalise(sample.image), config.smoothing)[chosen]
        kept.append((rng.random(chosen.size), channels, flat[chosen]))
        held += chosen.size
        if held > 2 * config.pixels:
            kept = [_lowest(kept, config.pixels)]
            held = config.pixels
    if not held:
        raise no_labelled_pixels()
    _, channels, labels = _lowest(kept, config.pixels)
    return channels, labels.astype(np.int64)


def _lowest(parts: list[tuple[npt.NDArray[Any], ...]], count: int) -> tuple[npt.NDArray[Any], ...]:
    ranks, channels, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ranks, kind="stable")[:count]
    return ranks[order], channels[order], labels[order]


def _with_neighbourhood(image: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """(C, H, W), of a volume (C, D, H, W) -> (pixels, 2 C): each pixel's channels, then those of the image smoothed by a Gaussian."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image, sigma=(0, *(sigma,) * (image.ndim - 1)), mode="nearest", truncate=3.0)
    return np.concatenate([image, smooth]).reshape(2 * len(image), -1).T


def _to_features(
    channels: npt.NDArray[np.float32], low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(n, 2 C) normalised channels -> (n, 2 C) features: two colours, CIELAB or 0..100."""
    return to_colours(channels.reshape(len(channels), 2, -1), low, high).reshape(len(channels), -1)


def _distances(features: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Squared distances, (n, clusters)."""
    squares = (features**2).sum(1)[:, None] - 2 * features @ centroids.T + (centroids**2).sum(1)
    return np.maximum(squares, 0)

"""Cut an image into regions and classify each region by its appearance.

The classifier is a multinomial logistic regression (Cox, "The regression analysis of binary sequences", 1958), fitted to the regions
of the training images. Its features are the mean and the standard deviation of a region's colours and edges, with their squares and
products. The position of a region is not a feature.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segpipe.models.classical.contract import (
    UNSEEN_CLASS_SCORE,
    Floats,
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

Regions = npt.NDArray[np.int64]
"""The region of each pixel, (H, W): 0 .. n - 1, each number in use."""

_WINDOW_IMAGES = 20
"""Number of images, in memory at once, whose values determine the intensity window."""
_WINDOW_STEP = 7
"""Every so many pixels of these images are used."""
_MAX_ITERATIONS = 200
_MIN_SCALE = 1e-6
"""Features with a smaller standard deviation are constant, and are not scaled."""
_TENSORS = ("low", "high", "mean", "scale", "weights", "bias")


class RegionsConfig(BaseModel):
    """Settings that all families of regions share."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int = Field(50_000, ge=100, le=2_000_000)
    """Number of regions of the training images, drawn at random, that the classifier is fitted to; this bounds memory and time."""


class RegionModel:
    """A fitted model of regions; implements `Classical`. A subclass defines how an image is cut.

    Args:
        config: Settings of the family.
        n_classes: Number of classes.
        seed: Seed of random choices in `cut`.
        **tensors: float32 arrays: the window of normalised values, `low` and `high`, (C,); the normalisation of the features, `mean` and
            `scale`, (F,); the classifier's `weights`, (n_classes, F), and `bias`, (n_classes,).
    """

    name: ClassVar[str]
    config_type: ClassVar[type[RegionsConfig]]

    def __init__(self, config: RegionsConfig, n_classes: int, seed: int, **tensors: Floats) -> None:
        self.config, self.n_classes, self.seed = config, n_classes, seed
        self.low, self.high, self.mean, self.scale, self.weights, self.bias = (tensors[key] for key in _TENSORS)

    @staticmethod
    def cut(colours: Floats, edges: Floats, config: Any, seed: int) -> Regions:
        """Cut an image into regions.

        Args:
            colours: (H, W, C), see `to_colours`.
            edges: Strength of edges, (H, W), see `edge_strength`.
            config: Settings of the family.
            seed: Seed of random choices.

        Returns:
            The region of each pixel, (H, W), 0 .. n - 1.
        """
        raise NotImplementedError

    @classmethod
    def fit(
        cls,
        samples: Iterable[Sample],
        normalise: Normalise,
        n_classes: int,
        seed: int = 0,
        config: RegionsConfig | None = None,
    ) -> Self:
        """Fit to labelled samples. The same samples and seed give the same model.

        Args:
            samples: Labelled samples, read once, at most 20 images in memory.
            normalise: Maps an image to the engine's input.
            n_classes: Number of classes.
            seed: Seed of all random choices.
            config: Settings; None for the defaults.

        Raises:
            DataError: No sample has a labelled pixel.
        """
        config = config or cls.config_type()
        stream = ((normalise(s.image), s.labels) for s in samples if s.labels is not None)
        first = list(itertools.islice(stream, _WINDOW_IMAGES))
        if not first:
            raise no_labelled_pixels()
        low, high = intensity_window(np.concatenate([_pixels(image)[::_WINDOW_STEP] for image, _ in first]))
        rows = _Rows(config.rows, n_classes, seed)
        for image, labels in itertools.chain(first, stream):
            colours = to_colours(image.transpose(1, 2, 0), low, high)
            edges = edge_strength(colours)
            regions = cls.cut(colours, edges, config, seed)
            rows.add(region_features(colours, edges, regions), regions, labels)
        return cls(config, n_classes, seed, low=low, high=high, **_fit_classifier(*rows.drawn(), n_classes))

    def __call__(self, batch: Floats) -> Floats:
        """Map a normalised batch (N, C, H, W) to scores (N, n_classes, H, W): for each pixel, the log-odds of its region."""
        batch = check_batch(batch, len(self.low))
        return np.stack([self._scores(image) for image in batch])

    def _scores(self, image: Floats) -> Floats:
        colours = to_colours(image.transpose(1, 2, 0), self.low, self.high)
        edges = edge_strength(colours)
        regions = self.cut(colours, edges, self.config, self.seed)
        features = (region_features(colours, edges, regions) - self.mean) / self.scale
        scores = (features @ self.weights.T + self.bias).T.astype(np.float32)
        return scores[:, regions]

    def save(self, path: Path) -> None:
        """Write the model as safetensors, atomically. The same model gives the same bytes."""
        metadata = {"config": self.config.model_dump(mode="json"), "n_classes": self.n_classes, "seed": self.seed}
        save_tensors(path, self.name, metadata, {key: getattr(self, key) for key in _TENSORS})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            DataError: The file does not hold a model of this family.
        """
        metadata, tensors = load_tensors(path, cls.name, _TENSORS)
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        channels, features, n_classes = len(tensors["low"]), len(tensors["mean"]), metadata.get("n_classes")
        expected = {
            "low": (channels,),
            "high": (channels,),
            "mean": (features,),
            "scale": (features,),
            "weights": (n_classes, features),
            "bias": (n_classes,),
        }
        if (
            shapes != expected
            or features != _feature_count(channels)
            or set(metadata) != {"config", "n_classes", "seed"}
        ):
            raise wrong_file(path, cls.name, f"{shapes}, {metadata}")
        try:
            config = cls.config_type.model_validate(metadata["config"])
        except ValidationError as error:
            raise wrong_file(path, cls.name, str(error)) from error
        return cls(config, metadata["n_classes"], metadata["seed"], **tensors)


def edge_strength(colours: Floats, sigma: float = 1.0) -> Floats:
    """Compute the magnitude of the gradient of the smoothed colours, over all channels.

    Args:
        colours: (H, W, C).
        sigma: Standard deviation of the Gaussian in pixels.

    Returns:
        (H, W), float32.
    """
    from scipy.ndimage import gaussian_filter

    total = np.zeros(colours.shape[:2], np.float32)
    for channel in np.moveaxis(colours, 2, 0):
        for order in ((0, 1), (1, 0)):
            total += gaussian_filter(channel, sigma, order=order, mode="nearest", truncate=3.0) ** 2
    return np.sqrt(total)


def region_features(colours: Floats, edges: Floats, regions: Regions) -> Floats:
    """Compute features of the appearance of each region.

    Args:
        colours: (H, W, C).
        edges: Strength of edges, (H, W).
        regions: The region of each pixel, (H, W), 0 .. n - 1.

    Returns:
        (n, F), float32: mean and standard deviation of colours and edges, then their squares and products.
    """
    flat, size = regions.ravel(), np.bincount(regions.ravel())
    means, deviations = [], []
    for channel in (*np.moveaxis(colours, 2, 0), edges):
        values = channel.ravel().astype(np.float64)
        mean = np.bincount(flat, values) / size
        means.append(mean)
        deviations.append(np.sqrt(np.maximum(np.bincount(flat, values**2) / size - mean**2, 0)))
    linear = np.stack(means + deviations, 1) / 100
    left, right = np.triu_indices(linear.shape[1])
    return np.concatenate([linear, linear[:, left] * linear[:, right]], 1).astype(np.float32)


def _feature_count(channels: int) -> int:
    linear = 2 * (channels + 1)
    return linear + linear * (linear + 1) // 2


def _pixels(image: Floats) -> Floats:
    return image.reshape(len(image), -1).T


class _Rows:
    """Features of training regions with their pixels per class, drawn at random so that memory stays bounded.

    Each region gets a random rank, and those with the lowest ranks are kept, so that images late in the stream have the same chance.
    """

    def __init__(self, max_rows: int, n_classes: int, seed: int) -> None:
        self.max_rows, self.n_classes = max_rows, n_classes
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.parts: list[tuple[npt.NDArray[Any], ...]] = []
        self.n_rows = 0

    def add(self, features: Floats, regions: Regions, labels: npt.NDArray[np.uint8]) -> None:
        labelled = labels < self.n_classes
        keys = regions[labelled] * self.n_classes + labels[labelled]
        pixels = np.bincount(keys, minlength=len(features) * self.n_classes).reshape(-1, self.n_classes)
        used = pixels.any(1)
        self.parts.append((self.rng.random(len(features))[used], features[used], pixels[used]))
        self.n_rows += int(used.sum())
        if self.n_rows > 2 * self.max_rows:
            self.parts, self.n_rows = [self._lowest_ranks()], self.max_rows

    def _lowest_ranks(self) -> tuple[npt.NDArray[Any], ...]:
        ranks, features, pixels = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.argsort(ranks, kind="stable")[: self.max_rows]
        return ranks[order], features[order], pixels[order]

    def drawn(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return features, (n, F), and pixels per class, (n, n_classes)."""
        _, features, pixels = self._lowest_ranks()
        return features, pixels


def _fit_classifier(features: Floats, pixels: npt.NDArray[np.int64], n_classes: int) -> dict[str, Floats]:
    """Fit the regression. A region is an example of each of its classes, weighted by its pixels of that class."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # installed with scikit-learn

    if not pixels.any():
        raise no_labelled_pixels()
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > _MIN_SCALE, scale, 1).astype(np.float32)
    rows, classes = np.nonzero(pixels)
    sample_weight = pixels[rows, classes] / pixels.sum() * len(features)
    weights = np.zeros((n_classes, features.shape[1]), np.float32)
    bias = np.full(n_classes, UNSEEN_CLASS_SCORE, np.float32)
    seen = np.unique(classes)
    if len(seen) == 1:
        bias[seen] = 0.0
    else:
        # One thread: the number of threads changes the order of sums, and machines would differ.
        with threadpool_limits(1), warnings.catch_warnings():
            # After so many iterations, further ones hardly improve the fit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression = LogisticRegression(C=1.0, max_iter=_MAX_ITERATIONS).fit(
                ((features - mean) / scale)[rows].astype(np.float64), classes, sample_weight=sample_weight
            )
        # For two classes scikit-learn returns the log-odds of the second one.
        coefficients, intercept = regression.coef_, regression.intercept_
        weights[seen] = coefficients if len(seen) > 2 else np.concatenate([np.zeros_like(coefficients), coefficients])
        bias[seen] = intercept if len(seen) > 2 else np.array([0.0, intercept[0]])
    return {"mean": mean, "scale": scale, "weights": weights, "bias": bias}

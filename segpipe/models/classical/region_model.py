"""An image cut into regions, each given a class by a rule that was fitted to the regions of the training images.

The rule is a multinomial logistic regression (Cox, "The regression analysis of binary sequences", 1958) on what a region looks
like: mean and deviation of its colours and of its edges, their squares and products. Where a region lies is not among them.
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
"""(H, W): which region a pixel belongs to, 0..n-1, each number in use."""

_FIRST = 20
"""Images that are held at once to see which values there are."""
_ITERATIONS = 200
_TENSORS = ("low", "high", "mean", "scale", "weights", "bias")


class RegionsConfig(BaseModel):
    """What every family of regions can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int = Field(50_000, ge=100, le=2_000_000)
    """How many regions of the training images the rule is fitted on, drawn at random; this bounds memory and time."""


class RegionModel:
    """A fitted model of regions; a `Classical`. A subclass says how an image is cut.

    low, high: (C,), the window of normalised values. mean, scale: (F,), of the features; weights: (n_classes, F) and
    bias: (n_classes,), of the rule. All float32.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[RegionsConfig]]

    def __init__(self, config: RegionsConfig, n_classes: int, seed: int, **tensors: Floats) -> None:
        self.config, self.n_classes, self.seed = config, n_classes, seed
        self.low, self.high, self.mean, self.scale, self.weights, self.bias = (tensors[key] for key in _TENSORS)

    @staticmethod
    def cut(colours: Floats, edges: Floats, config: Any, seed: int) -> Regions:
        """(H, W, C) colours and (H, W) strength of edges -> regions."""
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
        """Fit on labelled samples, read once, at most 20 images in memory. The same samples and seed give the same model.

        Raises DataError where there is not a single labelled pixel.
        """
        config = config or cls.config_type()
        stream = ((normalise(s.image), s.labels) for s in samples if s.labels is not None)
        first = list(itertools.islice(stream, _FIRST))
        if not first:
            raise no_labelled_pixels()
        low, high = intensity_window(np.concatenate([_pixels(image)[::7] for image, _ in first]))
        rows = _Rows(config.rows, n_classes, seed)
        for image, labels in itertools.chain(first, stream):
            colours = to_colours(image.transpose(1, 2, 0), low, high)
            edges = edge_strength(colours)
            regions = cls.cut(colours, edges, config, seed)
            rows.add(region_features(colours, edges, regions), regions, labels)
        return cls(config, n_classes, seed, low=low, high=high, **_fit_rule(*rows.drawn(), n_classes))

    def __call__(self, batch: Floats) -> Floats:
        """(N, C, H, W), normalised -> scores (N, n_classes, H, W): of each pixel the log-odds of its region."""
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
        """Write the model as safetensors, atomically; the same model gives the same bytes."""
        about = {"config": self.config.model_dump(mode="json"), "n_classes": self.n_classes, "seed": self.seed}
        save_tensors(path, self.name, about, {key: getattr(self, key) for key in _TENSORS})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; a DataError where the file is anything else."""
        about, tensors = load_tensors(path, cls.name, _TENSORS)
        found = {key: tensor.shape for key, tensor in tensors.items()}
        channels, features, n_classes = len(tensors["low"]), len(tensors["mean"]), about.get("n_classes")
        expected = {
            "low": (channels,),
            "high": (channels,),
            "mean": (features,),
            "scale": (features,),
            "weights": (n_classes, features),
            "bias": (n_classes,),
        }
        if found != expected or features != _features(channels) or set(about) != {"config", "n_classes", "seed"}:
            raise wrong_file(path, cls.name, f"{found}, {about}")
        try:
            return cls(cls.config_type.model_validate(about["config"]), about["n_classes"], about["seed"], **tensors)
        except ValidationError as error:
            raise wrong_file(path, cls.name, str(error)) from error


def edge_strength(colours: Floats, sigma: float = 1.0) -> Floats:
    """(H, W, C) -> (H, W): length of the gradient of the smoothed colours, over all channels."""
    from scipy.ndimage import gaussian_filter

    total = np.zeros(colours.shape[:2], np.float32)
    for channel in np.moveaxis(colours, 2, 0):
        for order in ((0, 1), (1, 0)):
            total += gaussian_filter(channel, sigma, order=order, mode="nearest", truncate=3.0) ** 2
    return np.sqrt(total)


def region_features(colours: Floats, edges: Floats, regions: Regions) -> Floats:
    """What each region looks like: (n, F), float32. Mean and deviation of colours and edges, then squares and products."""
    flat, size = regions.ravel(), np.bincount(regions.ravel())
    means, deviations = [], []
    for channel in (*np.moveaxis(colours, 2, 0), edges):
        values = channel.ravel().astype(np.float64)
        mean = np.bincount(flat, values) / size
        means.append(mean)
        deviations.append(np.sqrt(np.maximum(np.bincount(flat, values**2) / size - mean**2, 0)))
    plain = np.stack(means + deviations, 1) / 100
    left, right = np.triu_indices(plain.shape[1])
    return np.concatenate([plain, plain[:, left] * plain[:, right]], 1).astype(np.float32)


def _features(channels: int) -> int:
    plain = 2 * (channels + 1)
    return plain + plain * (plain + 1) // 2


def _pixels(image: Floats) -> Floats:
    return image.reshape(len(image), -1).T


class _Rows:
    """Regions of the training images: features and the share of each class, drawn so that memory stays bounded.

    Each region gets a random rank, and the lowest ranks stay, so that an image late in the stream has the same chance.
    """

    def __init__(self, most: int, n_classes: int, seed: int) -> None:
        self.most, self.n_classes = most, n_classes
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.kept: list[tuple[npt.NDArray[Any], ...]] = []
        self.held = 0

    def add(self, features: Floats, regions: Regions, labels: npt.NDArray[np.uint8]) -> None:
        counted = labels < self.n_classes
        keys = regions[counted] * self.n_classes + labels[counted]
        pixels = np.bincount(keys, minlength=len(features) * self.n_classes).reshape(-1, self.n_classes)
        used = pixels.any(1)
        self.kept.append((self.rng.random(len(features))[used], features[used], pixels[used]))
        self.held += int(used.sum())
        if self.held > 2 * self.most:
            self.kept, self.held = [self._lowest()], self.most

    def _lowest(self) -> tuple[npt.NDArray[Any], ...]:
        ranks, features, pixels = (np.concatenate(column) for column in zip(*self.kept, strict=True))
        order = np.argsort(ranks, kind="stable")[: self.most]
        return ranks[order], features[order], pixels[order]

    def drawn(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Features (n, F) and pixels of each class (n, n_classes)."""
        _, features, pixels = self._lowest()
        return features, pixels


def _fit_rule(features: Floats, pixels: npt.NDArray[np.int64], n_classes: int) -> dict[str, Floats]:
    """The regression: a region counts for each of its classes as often as it has pixels of it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # a part of every scikit-learn installation

    if not pixels.any():
        raise no_labelled_pixels()
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-6, scale, 1).astype(np.float32)
    rows, classes = np.nonzero(pixels)
    weight = pixels[rows, classes] / pixels.sum() * len(features)
    weights, bias = (
        np.zeros((n_classes, features.shape[1]), np.float32),
        np.full(n_classes, UNSEEN_CLASS_SCORE, np.float32),
    )
    shown = np.unique(classes)
    if len(shown) == 1:
        bias[shown] = 0.0
    else:
        # One thread: sums whose order depends on the number of threads would differ between machines.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # what is left to gain after so many steps is of no account
            rule = LogisticRegression(C=1.0, max_iter=_ITERATIONS).fit(
                ((features - mean) / scale)[rows].astype(np.float64), classes, sample_weight=weight
            )
        # Of two classes scikit-learn gives the log-odds of the second.
        weights[shown] = rule.coef_ if len(shown) > 2 else np.concatenate([np.zeros_like(rule.coef_), rule.coef_])
        bias[shown] = rule.intercept_ if len(shown) > 2 else np.array([0.0, rule.intercept_[0]])
    return {"mean": mean, "scale": scale, "weights": weights, "bias": bias}

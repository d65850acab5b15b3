"""A test of whether a mask value has the same meaning in all images: do the regions of one value look alike?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PERMUTATIONS = 199
_MIN_SPREAD = 1e-9


@dataclass(frozen=True)
class Region:
    """The pixels of one value in one image.

    image: the number of the image.
    value: the mask value.
    features: numbers that describe the region, such as its mean colour; the same ones for all regions.
    """

    image: int
    value: int
    features: tuple[float, ...]


def chance_of_meaning(regions: Sequence[Region], seed: int = 0) -> float:
    """Return how often regions with shuffled values look at least as uniform within each value as the real ones.

    Values are shuffled among the regions of each image, so that images of different brightness do not count. If values are classes,
    the regions of a value resemble each other, and the result is small. If they are instance ids, the result is uniform in 0..1.

    Args:
        regions: the regions of all images.
        seed: of the shuffling.

    Returns:
        The p-value of a permutation test with 199 permutations, 0.005..1; 1 if there is nothing to compare.
    """
    features = np.array([region.features for region in regions], np.float64)
    images = np.array([region.image for region in regions])
    values = np.array([region.value for region in regions])
    if len(features) < 2 or len(set(images.tolist())) < 2 or len(set(values.tolist())) < 2:
        return 1.0
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > _MIN_SPREAD, spread, np.inf)
    if not features.any():
        return 1.0
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(images == image) for image in np.unique(images)]
    observed = _between_values(features, values)
    at_least = 0
    for _ in range(_PERMUTATIONS):
        shuffled = values.copy()
        for group in groups:
            shuffled[group] = values[generator.permutation(group)]
        at_least += _between_values(features, shuffled) >= observed - _MIN_SPREAD
    return (1 + at_least) / (1 + _PERMUTATIONS)


def _between_values(features: npt.NDArray[np.float64], values: npt.NDArray[np.int64]) -> float:
    """Return the sum of squares between values: how much of the differences of the features the values explain."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    total = 0.0
    for column in features.T:
        sums = np.bincount(inverse, column)
        total += float((sums**2 / counts).sum())
    return total

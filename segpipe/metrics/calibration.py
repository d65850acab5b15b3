"""Calibration of probabilities: reliability, expected calibration error, and the temperature that corrects it.

Images stream through; only a histogram, or a sample of pixels of bounded size, is kept. Pixels whose truth is `IGNORE` are never counted.
Sources: docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.metrics.counting import Values
from segpipe.samples import IGNORE

Probabilities = npt.NDArray[np.floating]

BINS = 15
"""Bins of equal width over 0..1, as in Guo et al. 2017; a confidence on an edge belongs to the bin below it."""

_MIN_PROBABILITY = 1e-12

TEMPERATURES = (0.05, 20.0)
"""Bounds of a temperature. At either end, one number cannot correct the probabilities, or all predictions are right."""


@dataclass(frozen=True)
class Reliability:
    """A histogram of confidence against correctness; the sum over images is that of the dataset.

    There is one row of the largest probability of each pixel (`reliability`), or one row for each class's own probability
    (`class_reliability`).

    Attributes:
        count: (rows, bins), pixels.
        confidence: (rows, bins), the sum of their confidences.
        hits: (rows, bins), how many of them are right.
    """

    count: npt.NDArray[np.int64]
    confidence: Values
    hits: npt.NDArray[np.int64]

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.count + other.count, self.confidence + other.confidence, self.hits + other.hits)

    def curve(self) -> tuple[Values, Values]:
        """Return the axes of the reliability diagram: mean confidence and share of hits, each (rows, bins), NaN in empty bins."""
        filled = self.count > 0
        mean, share = (
            np.divide(total, self.count, out=np.full(self.count.shape, np.nan), where=filled)
            for total in (self.confidence, self.hits)
        )
        return mean, share

    def expected_error(self) -> Values:
        """Compute ECE, (rows,): the mean over pixels of |confidence - share of hits| of their bin; NaN if no pixel counts."""
        gap = np.abs(self.confidence - self.hits).sum(1)
        total = self.count.sum(1)
        return np.divide(gap, total, out=np.full(len(total), np.nan), where=total > 0)

    def largest_error(self) -> Values:
        """Compute MCE, (rows,): the largest |confidence - share of hits| of a bin; NaN if no pixel counts."""
        mean, share = self.curve()
        gap = np.where(self.count > 0, np.abs(mean - share), -1.0).max(1)
        return np.where(gap < 0, np.nan, gap)


def reliability(truth: npt.NDArray[np.uint8], probabilities: Probabilities, bins: int = BINS) -> Reliability:
    """Count how often the most probable class of each pixel is right, by its probability.

    Args:
        truth: (...), uint8 class ids and `IGNORE`.
        probabilities: (n_classes, ...), 0..1.
        bins: the number of bins.

    Returns:
        A histogram with one row.

    Raises:
        ValueError: the shapes do not fit, or an id is not a class.
    """
    labels, scores = _counted_pixels(truth, probabilities)
    return _histogram(scores.max(0)[None], (scores.argmax(0) == labels)[None], bins)


def class_reliability(truth: npt.NDArray[np.uint8], probabilities: Probabilities, bins: int = BINS) -> Reliability:
    """Count how often each class is present, by its own probability. Rare classes count as much as frequent ones.

    Args:
        truth: (...), uint8 class ids and `IGNORE`.
        probabilities: (n_classes, ...), 0..1.
        bins: the number of bins.

    Returns:
        A histogram with one row per class.

    Raises:
        ValueError: the shapes do not fit, or an id is not a class.
    """
    labels, scores = _counted_pixels(truth, probabilities)
    return _histogram(scores, labels[None] == np.arange(len(scores))[:, None], bins)


def _counted_pixels(
    truth: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.uint8], Probabilities]:
    """Return the pixels that are not ignored: (n,) class ids and (n_classes, n) scores."""
    if scores.shape[1:] != truth.shape:
        raise ValueError(
            f"truth has shape {truth.shape}, scores {scores.shape}; expected the classes, then the same shape"
        )
    flat = truth.reshape(-1)
    counted = flat != IGNORE
    labels = flat[counted]
    if labels.size and labels.max() >= len(scores):
        raise ValueError(f"class id {labels.max()} in a mask, and scores of {len(scores)} classes")
    return labels, scores.reshape(len(scores), -1)[:, counted]


def _histogram(confidence: Probabilities, hit: npt.NDArray[np.bool_], bins: int) -> Reliability:
    rows = len(confidence)
    index = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.intp) - 1, 0, bins - 1)
    index += bins * np.arange(rows)[:, None]
    flat = index.reshape(-1)
    size = rows * bins
    count = np.bincount(flat, minlength=size).reshape(rows, bins)
    total = np.bincount(flat, confidence.reshape(-1), size).reshape(rows, bins).astype(np.float64)  # int without pixels
    return Reliability(count, total, np.bincount(flat[hit.reshape(-1)], minlength=size).reshape(rows, bins))


class PixelSample:
    """A uniform random sample of the counted pixels of a stream of images: `size` of them, or all if there are fewer.

    Every pixel draws a random number, and those with the smallest numbers stay: each pixel of the stream is equally likely to be in
    the sample, whatever the number and size of images. The same stream and seed give the same sample.

    Attributes:
        truth: (n,), class ids.
        scores: (n_classes, n), float32.
    """

    def __init__(self, n_classes: int, size: int = 1 << 18, seed: int = 0) -> None:
        self.size = size
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._draws = np.empty(0)
        self.truth = np.empty(0, np.uint8)
        self.scores = np.empty((n_classes, 0), np.float32)

    def add(self, truth: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]) -> None:
        """Add an image.

        Args:
            truth: (...), class ids and `IGNORE`.
            scores: (n_classes, ...), logits or probabilities.
        """
        labels, values = _counted_pixels(truth, scores)
        draws = self._rng.random(labels.size)
        if self._draws.size == self.size:
            small = draws < self._draws.max()
            draws, labels, values = draws[small], labels[small], values[:, small]
        draws = np.concatenate([self._draws, draws])
        order = np.argpartition(draws, self.size)[: self.size] if draws.size > self.size else slice(None)
        self._draws = draws[order]
        self.truth = np.concatenate([self.truth, labels])[order]
        self.scores = np.concatenate([self.scores, values.astype(np.float32)], axis=1)[:, order]


def logits_of(probabilities: Probabilities) -> Values:
    """Return the logits of probabilities, (n_classes, ...), up to a constant per pixel. Zeros count as 1e-12."""
    return np.log(np.maximum(probabilities.astype(np.float64), _MIN_PROBABILITY))


def fit_temperature(truth: npt.NDArray[np.uint8], logits: npt.NDArray[np.floating]) -> float:
    """Fit the temperature that makes the truth most likely (Guo et al. 2017).

    The negative log likelihood is convex in 1 / temperature, so its slope has one root, which is bracketed and found.

    Args:
        truth: (...), class ids and `IGNORE`.
        logits: (n_classes, ...), of the validation split, never of the test split.

    Returns:
        The temperature, within `TEMPERATURES`.

    Raises:
        ValueError: no pixel counts, or the shapes do not fit.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    labels, values = _counted_pixels(truth, logits)
    if not labels.size:
        raise ValueError("no pixel to fit a temperature on")
    values = values.astype(np.float64)
    values -= values.max(0)
    mean_true_logit = values[labels, np.arange(labels.size)].mean()

    def slope(inverse_temperature: float) -> float:
        expected = (softmax(inverse_temperature * values, axis=0) * values).sum(0).mean()
        return float(expected - mean_true_logit)

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return float(1 / brentq(slope, low, high, xtol=1e-9))


def apply_temperature(probabilities: Probabilities, temperature: float) -> npt.NDArray[np.float32]:
    """Compute softmax(logits / temperature) from probabilities. The most probable class stays the same.

    Args:
        probabilities: (n_classes, ...), 0..1.
        temperature: above 1 makes the probabilities less confident, below 1 more.

    Returns:
        (n_classes, ...), float32.
    """
    logits = logits_of(probabilities) / temperature
    likely = np.exp(logits - logits.max(0))  # numpy alone: the endpoint calls this, and does not load scipy
    return (likely / likely.sum(0)).astype(np.float32)

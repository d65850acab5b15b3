"""Probabilities against what happened: reliability, expected calibration error, and the temperature that mends it.

Images stream through; what is kept is a histogram, or a sample of pixels of bounded size. Pixels whose truth is `IGNORE`
count nowhere. Sources: docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.metrics.counting import Values
from segpipe.samples import IGNORE

Probabilities = npt.NDArray[np.floating]

BINS = 15
"""Bins of equal width over 0..1, as Guo et al. 2017 count; a confidence on an edge belongs to the bin below it."""

_LEAST_PROBABILITY = 1e-12

TEMPERATURES = (0.05, 20.0)
"""Bounds of a temperature. At either end the probabilities are wrong beyond what one number mends, or all answers are right."""


@dataclass(frozen=True)
class Reliability:
    """A histogram of confidence against correctness; add those of images to get that of a dataset.

    Each (rows, bins): `count` of pixels, sum of `confidence`, number of `hits`. One row of the largest probability of each
    pixel (`reliability`), or one for each class's own probability (`class_reliability`).
    """

    count: npt.NDArray[np.int64]
    confidence: Values
    hits: npt.NDArray[np.int64]

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.count + other.count, self.confidence + other.confidence, self.hits + other.hits)

    def curve(self) -> tuple[Values, Values]:
        """Mean confidence and share of hits by bin, each (rows, bins), NaN in an empty bin: the axes of the diagram."""
        there = self.count > 0
        mean, share = (
            np.divide(total, self.count, out=np.full(self.count.shape, np.nan), where=there)
            for total in (self.confidence, self.hits)
        )
        return mean, share

    def expected_error(self) -> Values:
        """(rows,): ECE, the mean over pixels of |confidence - share of hits| of their bin; NaN where no pixel counts."""
        gap = np.abs(self.confidence - self.hits).sum(1)
        total = self.count.sum(1)
        return np.divide(gap, total, out=np.full(len(total), np.nan), where=total > 0)

    def largest_error(self) -> Values:
        """(rows,): MCE, the largest |confidence - share of hits| of a bin; NaN where no pixel counts."""
        mean, share = self.curve()
        gap = np.where(self.count > 0, np.abs(mean - share), -1.0).max(1)
        return np.where(gap < 0, np.nan, gap)


def reliability(truth: npt.NDArray[np.uint8], probabilities: Probabilities, bins: int = BINS) -> Reliability:
    """Of the class that each pixel is given: is it right as often as it is sure?

    truth: (...), uint8 class ids. probabilities: (n_classes, ...), 0..1.
    """
    kept, said = _counted(truth, probabilities)
    return _histogram(said.max(0)[None], (said.argmax(0) == kept)[None], bins)


def class_reliability(truth: npt.NDArray[np.uint8], probabilities: Probabilities, bins: int = BINS) -> Reliability:
    """Of every class, a row each: is it there as often as its own probability says? Rare classes count like frequent ones."""
    kept, said = _counted(truth, probabilities)
    return _histogram(said, kept[None] == np.arange(len(said))[:, None], bins)


def _counted(
    truth: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.uint8], Probabilities]:
    """The pixels that count: (n,) class ids and (n_classes, n) scores."""
    if scores.shape[1:] != truth.shape:
        raise ValueError(f"truth has shape {truth.shape}, scores {scores.shape}: classes first, then the same")
    flat = truth.reshape(-1)
    counted = flat != IGNORE
    kept = flat[counted]
    if kept.size and kept.max() >= len(scores):
        raise ValueError(f"class id {kept.max()} among scores of {len(scores)} classes")
    return kept, scores.reshape(len(scores), -1)[:, counted]


def _histogram(confidence: Probabilities, hit: npt.NDArray[np.bool_], bins: int) -> Reliability:
    rows = len(confidence)
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.intp) - 1, 0, bins - 1)
    place += bins * np.arange(rows)[:, None]
    flat = place.reshape(-1)
    size = rows * bins
    count = np.bincount(flat, minlength=size).reshape(rows, bins)
    total = (
        np.bincount(flat, confidence.reshape(-1), size).reshape(rows, bins).astype(np.float64)
    )  # int where no pixel is
    return Reliability(count, total, np.bincount(flat[hit.reshape(-1)], minlength=size).reshape(rows, bins))


class PixelSample:
    """A uniform random sample of the counted pixels of a stream of images, `size` of them or all there are.

    Every pixel draws a random number, and those with the smallest stay: each pixel of the stream is as likely to be in it,
    whatever the number and size of images. The same stream and seed give the same sample.
    """

    def __init__(self, n_classes: int, size: int = 1 << 18, seed: int = 0) -> None:
        self.size = size
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._draws = np.empty(0)
        self.truth = np.empty(0, np.uint8)
        self.scores = np.empty((n_classes, 0), np.float32)

    def add(self, truth: npt.NDArray[np.uint8], scores: npt.NDArray[np.floating]) -> None:
        """Add an image: (...) class ids with `IGNORE`, and (n_classes, ...) logits or probabilities."""
        kept, said = _counted(truth, scores)
        draws = self._rng.random(kept.size)
        if self._draws.size == self.size:
            small = draws < self._draws.max()
            draws, kept, said = draws[small], kept[small], said[:, small]
        draws = np.concatenate([self._draws, draws])
        order = np.argpartition(draws, self.size)[: self.size] if draws.size > self.size else slice(None)
        self._draws = draws[order]
        self.truth = np.concatenate([self.truth, kept])[order]
        self.scores = np.concatenate([self.scores, said.astype(np.float32)], axis=1)[:, order]


def logits_of(probabilities: Probabilities) -> Values:
    """Logits, up to a constant by pixel, of probabilities (n_classes, ...). Zeros count as 1e-12."""
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST_PROBABILITY))


def fit_temperature(truth: npt.NDArray[np.uint8], logits: npt.NDArray[np.floating]) -> float:
    """The temperature that makes the truth likeliest (Guo et al. 2017), within `TEMPERATURES`.

    truth: (...), class ids with `IGNORE`. logits: (n_classes, ...), of the validation split, never of the test split. The
    negative log likelihood is convex in 1 / temperature, so its slope has one root, which is bracketed and found.
    Raises ValueError where no pixel counts.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    kept, said = _counted(truth, logits)
    if not kept.size:
        raise ValueError("no pixel to fit a temperature on")
    said = said.astype(np.float64)
    said -= said.max(0)
    wanted = said[kept, np.arange(kept.size)].mean()

    def slope(sharpness: float) -> float:
        expected = (softmax(sharpness * said, axis=0) * said).sum(0).mean()
        return float(expected - wanted)

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return float(1 / brentq(slope, low, high, xtol=1e-9))


def apply_temperature(probabilities: Probabilities, temperature: float) -> npt.NDArray[np.float32]:
    """softmax(logits / temperature) from probabilities, (n_classes, ...), float32. Which class is likeliest stays as it was."""
    logits = logits_of(probabilities) / temperature
    likely = np.exp(logits - logits.max(0))  # numpy alone: this is asked for where a model serves
    return (likely / likely.sum(0)).astype(np.float32)  # type: ignore[no-any-return]

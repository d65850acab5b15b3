"""Scores from confusion matrices. Every name says what is averaged over what.

| name | meaning |
|---|---|
| `R.dataset.macro` | counts summed over all images, then R of each class, then the mean over classes |
| `R.dataset.micro` | counts summed over all images and classes, then R |
| `R.image.macro` | R of each class within an image, the mean over its classes, then the mean over images |
| `R.image.micro` | counts summed over the classes of an image, then R, then the mean over images |
| `R.class.NAME` | counts summed over all images, then R of that class |
| `accuracy.pixel` | share of all counted pixels that got their class |

R is `iou` (Jaccard), `dice` (F1), `precision` or `recall`.

Empty masks: a class that is neither in the truth nor in the prediction is left out of a macro average; one that is predicted
but not there, or there but never predicted, counts 0. Pixels whose truth is `IGNORE` count nowhere, whatever is predicted. An
image without a counted pixel is left out of the mean over images. Where nothing is left to average, a score does not exist:
NaN in arrays, None in `scores`, and no key in JSON.

The definitions are those of Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010 (IoU), and of
van Rijsbergen, "Information Retrieval", 1979 (precision, recall, F1).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segpipe.errors import ConfigError
from segpipe.samples import IGNORE

Counts = npt.NDArray[np.int64]
Tallies = npt.NDArray[np.number[Any]]
"""(..., 3, n_classes): hits, pixels in the truth, pixels predicted. All that the scores above need of a confusion matrix."""
Values = npt.NDArray[np.float64]

MAIN_METRIC = "iou.dataset.macro"
"""The score that candidates are ranked by (on the validation split) and that every table leads with."""

_BLOCK = 1 << 18


def confusion(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], n_classes: int) -> Counts:
    """Pixels by true class (rows) and predicted class (columns): (n_classes, n_classes), int64.

    truth: any shape, class ids and `IGNORE`. prediction: the same shape, class ids; ignored pixels may hold anything.
    Raises ValueError where shapes differ or an id is not a class.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise ValueError(f"class ids are uint8, found {truth.dtype} and {prediction.dtype}")
    # Both ids in one 16 bit number need no masking, and what is no class shows up in its own bin.
    joint = np.zeros(1 << 16, np.int64)
    flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, flat_truth.size, _BLOCK):  # blocks that stay in the processor's cache
        pair = flat_truth[start : start + _BLOCK].astype(np.intp)
        pair <<= 8
        pair |= flat_prediction[start : start + _BLOCK]
        found = np.bincount(pair)
        joint[: found.size] += found
    table = joint.reshape(256, 256)[:IGNORE]
    counts = table[:n_classes, :n_classes].copy()
    if counts.sum() != table.sum():
        strange = sorted({int(i) for i in np.argwhere(table).ravel() if i >= n_classes})
        raise ValueError(f"class ids {strange} in a mask of {n_classes} classes")
    return counts


def tallies(confusions: npt.NDArray[np.int64]) -> Counts:
    """(..., n_classes, n_classes) confusion matrices -> (..., 3, n_classes) `Tallies`."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    return np.stack([hits, confusions.sum(-1), confusions.sum(-2)], axis=-2)


RATIOS: Mapping[str, Callable[[Any, Any, Any], tuple[Any, Any]]] = {
    "iou": lambda hits, truth, predicted: (hits, truth + predicted - hits),
    "dice": lambda hits, truth, predicted: (2 * hits, truth + predicted),
    "precision": lambda hits, truth, predicted: (hits, predicted),
    "recall": lambda hits, truth, predicted: (hits, truth),
}
"""(hits, pixels in the truth, pixels predicted) -> (numerator, denominator)."""


def per_class(ratio: str, tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (..., n_classes): the ratio of each class, NaN for a class that is nowhere."""
    hits, truth, predicted = tally[..., 0, :], tally[..., 1, :], tally[..., 2, :]
    value = _divide(*RATIOS[ratio](hits, truth, predicted), otherwise=0.0)
    return np.where(truth + predicted > 0, value, np.nan)


def macro(ratio: str, tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (...): the mean over the classes that are anywhere; NaN where none is."""
    value = per_class(ratio, tally)
    there = ~np.isnan(value)
    return _divide(np.where(there, value, 0.0).sum(-1), there.sum(-1), otherwise=np.nan)


def micro(ratio: str, tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (...): the ratio of the counts summed over classes; NaN where no pixel counts."""
    total = tally.sum(-1)
    return _divide(*RATIOS[ratio](total[..., 0], total[..., 1], total[..., 2]), otherwise=np.nan)


def _divide(numerator: Any, denominator: Any, otherwise: float) -> Values:
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    out = np.full(np.broadcast(numerator, denominator).shape, otherwise)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


@dataclass(frozen=True)
class Metric:
    """A named score. `of` maps tallies (..., 3, n_classes) to scores (...); `level` says whether it sees the sum over
    images or each image alone."""

    name: str
    level: Literal["dataset", "image"]
    of: Callable[[Tallies], Values]

    def value(self, tally: Tallies) -> float:
        """The score of a dataset from the tallies of its images, (n, 3, n_classes); NaN where it does not exist."""
        if self.level == "dataset":
            return float(self.of(tally.sum(0)))
        each = self.of(tally)
        there = each[~np.isnan(each)]
        return float(there.mean()) if there.size else float("nan")


def metric_names(classes: Sequence[str]) -> list[str]:
    """All the names that `metric` knows."""
    averages = [f"{r}.{level}.{mean}" for r in RATIOS for level in ("dataset", "image") for mean in ("macro", "micro")]
    return [*averages, "accuracy.pixel", *(f"{r}.class.{name}" for r in RATIOS for name in classes)]


def metric(name: str, classes: Sequence[str]) -> Metric:
    """The score of this name; a `ConfigError` with the nearest known name where there is none."""
    known = metric_names(classes)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        raise ConfigError("no such metric", found=name, fix=fix)
    if name == "accuracy.pixel":
        return Metric(name, "dataset", lambda tally: micro("recall", tally))
    ratio, scope, rest = name.split(".", 2)
    if scope == "class":
        index = list(classes).index(rest)
        return Metric(name, "dataset", lambda tally: per_class(ratio, tally)[..., index])
    average = macro if rest == "macro" else micro
    return Metric(name, "dataset" if scope == "dataset" else "image", lambda tally: average(ratio, tally))


def scores(tally: Tallies, classes: Sequence[str]) -> dict[str, float | None]:
    """Every metric of a dataset by name, from the tallies of its images, (n, 3, n_classes); None where it does not exist."""
    values = {name: metric(name, classes).value(tally) for name in metric_names(classes)}
    return {name: None if np.isnan(value) else value for name, value in values.items()}

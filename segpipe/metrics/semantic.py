"""Class metrics of pixels. Every name says what is averaged over what.

| name | meaning |
|---|---|
| `R.dataset.macro` | counts summed over all images, then R of each class, then the mean over classes |
| `R.dataset.micro` | counts summed over all images and classes, then R |
| `R.dataset.weighted` | as macro, with each class weighted by its pixels in the truth |
| `R.image.macro`, `.micro`, `.weighted` | the same within each image, then the mean over images |
| `R.image.macro_empty1` | as `R.image.macro`, but a class that is in neither truth nor prediction of an image counts as 1 there |
| `R.class.NAME` | counts summed over all images, then R of that class |
| `R.image.class.NAME` | R of that class within each image, then the mean over the images that have it (in truth or prediction) |
| `R.image.class_empty1.NAME` | the mean over all images; those without the class count as 1 |
| `accuracy.pixel` | share of the counted pixels whose class was predicted |
| `accuracy.dataset.macro`, `accuracy.image.macro` | share of a class's true pixels that were predicted, mean over classes in the truth |
| `mcc.dataset.multiclass`, `mcc.image.multiclass` | Matthews correlation of all classes at once |
| `mcc.class.NAME` | Matthews correlation of that class against the rest, counts summed over all images |

R is `iou` (Jaccard), `dice` (F1), `precision` or `recall`. If classes overlap, accuracies and Matthews correlations do not exist: they
assume that each pixel has one class.

Empty masks: a class that is neither in the truth nor in the prediction is left out of a macro average; one that is only predicted, or
only in the truth, counts as 0. Pixels whose truth is `IGNORE` are never counted, whatever is predicted. An image without a counted pixel
is left out of the mean over images. If nothing is left to average, a score does not exist: NaN in arrays, None in `scores`, and no key
in JSON. Only the names with `empty1` reward absence.

Sources: docs/metrics.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from segpipe.errors import ConfigError
from segpipe.metrics.counting import Tallies, Values

MAIN_METRIC = "iou.dataset.macro"
"""The metric by which candidates are ranked by default (on the validation split), and the first one in every table."""

RATIOS: Mapping[str, Callable[[Any, Any, Any], tuple[Any, Any]]] = {
    "iou": lambda hits, truth, predicted: (hits, truth + predicted - hits),
    "dice": lambda hits, truth, predicted: (2 * hits, truth + predicted),
    "precision": lambda hits, truth, predicted: (hits, predicted),
    "recall": lambda hits, truth, predicted: (hits, truth),
}
"""The ratios as functions: (hits, pixels in the truth, pixels predicted) -> (numerator, denominator)."""


def per_class(ratio: str, tally: Tallies) -> Values:
    """Compute the ratio of each class.

    Args:
        ratio: a key of `RATIOS`: iou, dice, precision or recall.
        tally: (..., 3, n_classes), counts of pixels, boundary pixels or instances.

    Returns:
        (..., n_classes), 0..1; NaN for a class that is neither in the truth nor in the prediction.
    """
    return _ratio(ratio, tally[..., 0, :], tally[..., 1, :], tally[..., 2, :])


def macro(ratio: str, tally: Tallies) -> Values:
    """Compute the mean ratio over the classes that are in the truth or in the prediction.

    Args:
        ratio: a key of `RATIOS`: iou, dice, precision or recall.
        tally: (..., 3, n_classes), counts of pixels, boundary pixels or instances.

    Returns:
        (...), 0..1; NaN if no class is in either.
    """
    return _mean(per_class(ratio, tally))


def macro_in_truth(ratio: str, tally: Tallies) -> Values:
    """Compute the mean ratio over the classes that are in the truth: choices on a split are made by the classes that it holds.

    A class that is only predicted counts through the pixels that the other classes miss.

    Args:
        ratio: a key of `RATIOS`: iou, dice, precision or recall.
        tally: (..., 3, n_classes), counts of pixels.

    Returns:
        (...), 0..1; NaN if the truth is empty.
    """
    return _mean(np.where(tally[..., 1, :] > 0, per_class(ratio, tally), np.nan))


def micro(ratio: str, tally: Tallies) -> Values:
    """Compute the ratio of the counts summed over classes.

    Args:
        ratio: a key of `RATIOS`: iou, dice, precision or recall.
        tally: (..., 3, n_classes), counts of pixels, boundary pixels or instances.

    Returns:
        (...), 0..1; NaN if nothing counts.
    """
    total = tally.sum(-1)
    return _ratio(ratio, total[..., 0], total[..., 1], total[..., 2])


def weighted(ratio: str, tally: Tallies) -> Values:
    """Compute the mean ratio, with classes weighted by their pixels in the truth (for IoU: frequency-weighted IoU).

    A class that is only predicted has no weight: its pixels are missing from the classes that they belong to.

    Args:
        ratio: a key of `RATIOS`: iou, dice, precision or recall.
        tally: (..., 3, n_classes), counts of pixels.

    Returns:
        (...), 0..1; NaN if nothing counts.
    """
    truth = tally[..., 1, :]
    value = np.nan_to_num(per_class(ratio, tally))
    return _divide((truth * value).sum(-1), truth.sum(-1), otherwise=np.nan)


def accuracy_macro(tally: Tallies) -> Values:
    """Compute the mean class accuracy over the classes in the truth: (..., 3, n_classes) -> (...), NaN if there is none."""
    hits, truth = tally[..., 0, :], tally[..., 1, :]
    return _mean(_divide(hits, truth, otherwise=np.nan))


def matthews(tally: Tallies) -> Values:
    """Compute the multi-class Matthews correlation (Gorodkin's R_K).

    Args:
        tally: (..., 3, n_classes), counts of pixels; classes do not overlap.

    Returns:
        (...), -1..1. 0 if either truth or prediction has a single class, or if both have one and these differ. NaN if both have the
        same single class: there is nothing to correlate.
    """
    size = tally[..., 1, :].sum(-1)
    share = _divide(tally, size[..., None, None], otherwise=0.0)  # squares of counts would lose digits
    hits, truth, predicted = share[..., 0, :].sum(-1), share[..., 1, :], share[..., 2, :]
    spread = (truth * (1 - truth)).sum(-1) * (predicted * (1 - predicted)).sum(-1)
    value = _divide(hits - (truth * predicted).sum(-1), np.sqrt(spread), otherwise=0.0)
    same_class = (tally[..., 0, :] == size[..., None]).any(-1)
    return np.where(same_class, np.nan, value)


def _ratio(ratio: str, hits: Any, truth: Any, predicted: Any) -> Values:
    """Compute a ratio: NaN if truth and prediction are empty, 0 if only the denominator is."""
    value = _divide(*RATIOS[ratio](hits, truth, predicted), otherwise=0.0)
    return np.where(truth + predicted > 0, value, np.nan)


def _mean(values: Values) -> Values:
    """Compute the mean over the last axis, without NaN; NaN if nothing is left."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(-1), known.sum(-1), otherwise=np.nan)


def _divide(numerator: Any, denominator: Any, otherwise: float) -> Values:
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    out = np.full(np.broadcast(numerator, denominator).shape, otherwise)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _of_class(ratio: str, index: int, tally: Tallies) -> Values:
    return per_class(ratio, tally[..., index : index + 1])[..., 0]


def _of_class_empty1(ratio: str, index: int, tally: Tallies) -> Values:
    value = _of_class(ratio, index, tally)
    return np.where(np.isnan(value) & (tally[..., 1, :].sum(-1) > 0), 1.0, value)


def _macro_empty1(ratio: str, tally: Tallies) -> Values:
    value = per_class(ratio, tally)
    counted = tally[..., 1, :].sum(-1, keepdims=True) > 0
    return _mean(np.where(np.isnan(value) & counted, 1.0, value))


def _matthews_of_class(index: int, tally: Tallies) -> Values:
    """Compute the correlation of one class against the rest, from tallies of two classes."""
    one = tally[..., index]
    size = tally[..., 1, :].sum(-1)
    hits, truth, predicted = one[..., 0], one[..., 1], one[..., 2]
    rest = np.stack([size - truth - predicted + hits, size - truth, size - predicted], -1)
    return matthews(np.stack([one, rest], -1))


@dataclass(frozen=True)
class Metric:
    """A metric by its name.

    Attributes:
        name: such as "iou.dataset.macro".
        level: "dataset" if it is computed from counts summed over images; "image" if it is the mean of the images' scores.
        compute: maps tallies (..., 3, n_classes) to scores (...).
    """

    name: str
    level: Literal["dataset", "image"]
    compute: Callable[[Tallies], Values]

    def value(self, tally: Tallies) -> float:
        """Compute the score of a dataset from the tallies of its images, (images, 3, n_classes); NaN if it does not exist."""
        if self.level == "dataset":
            return float(self.compute(tally.sum(0)))
        by_image = self.compute(tally)
        known = by_image[~np.isnan(by_image)]
        return float(known.mean()) if known.size else float("nan")


def _table(classes: Sequence[str], overlapping: bool) -> dict[str, Metric]:
    """Make every metric, by name."""
    metrics: list[Metric] = []
    levels: tuple[Literal["dataset", "image"], ...] = ("dataset", "image")
    for ratio in RATIOS:
        for level in levels:
            averages = {"macro": macro, "micro": micro, "weighted": weighted}
            metrics += [
                Metric(f"{ratio}.{level}.{name}", level, partial(function, ratio))
                for name, function in averages.items()
            ]
        metrics.append(Metric(f"{ratio}.image.macro_empty1", "image", partial(_macro_empty1, ratio)))
        for index, name in enumerate(classes):
            metrics += [
                Metric(f"{ratio}.class.{name}", "dataset", partial(_of_class, ratio, index)),
                Metric(f"{ratio}.image.class.{name}", "image", partial(_of_class, ratio, index)),
                Metric(f"{ratio}.image.class_empty1.{name}", "image", partial(_of_class_empty1, ratio, index)),
            ]
    if overlapping:
        return {metric.name: metric for metric in metrics}
    metrics.append(Metric("accuracy.pixel", "dataset", partial(micro, "recall")))
    for level in levels:
        metrics.append(Metric(f"accuracy.{level}.macro", level, accuracy_macro))
        metrics.append(Metric(f"mcc.{level}.multiclass", level, matthews))
    metrics += [Metric(f"mcc.class.{n}", "dataset", partial(_matthews_of_class, i)) for i, n in enumerate(classes)]
    return {metric.name: metric for metric in metrics}


def metric_names(classes: Sequence[str], overlapping: bool = False) -> list[str]:
    """Return the names of all metrics.

    Args:
        classes: the names of the classes.
        overlapping: whether classes overlap; then there are fewer metrics.
    """
    return list(_table(classes, overlapping))


def metric(name: str, classes: Sequence[str], overlapping: bool = False) -> Metric:
    """Return a metric by its name.

    Args:
        name: such as "iou.dataset.macro"; the docstring of this module lists them.
        classes: the names of the classes.
        overlapping: whether classes overlap; then there are fewer metrics.

    Raises:
        ConfigError: there is no metric of this name; the message suggests the nearest one.
    """
    known = _table(classes, overlapping)
    if name not in known:
        if overlapping and name in _table(classes, False):
            raise ConfigError(
                "does not exist for classes that overlap", found=name, fix=f"use {MAIN_METRIC}, or iou.class.NAME"
            )
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        fix = f"did you mean `{nearest[0]}`?" if nearest else f"the metrics are {', '.join(known)}"
        raise ConfigError("no such metric", found=name, fix=fix)
    return known[name]


def scores(tally: Tallies, classes: Sequence[str], overlapping: bool = False) -> dict[str, float | None]:
    """Compute every metric of a dataset.

    Args:
        tally: (images, 3, n_classes), the tallies of its images.
        classes: the names of the classes.
        overlapping: whether classes overlap; then there are fewer metrics.

    Returns:
        Scores by name; None if a score does not exist.
    """
    by_level = {"dataset": tally.sum(0, keepdims=True), "image": tally}
    values = {name: metric.value(by_level[metric.level]) for name, metric in _table(classes, overlapping).items()}
    return {name: None if np.isnan(value) else value for name, value in values.items()}

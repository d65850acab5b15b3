"""Scores of classes. Every name says what is averaged over what.

| name | meaning |
|---|---|
| `R.dataset.macro` | counts summed over all images, then R of each class, then the mean over classes |
| `R.dataset.micro` | counts summed over all images and classes, then R |
| `R.dataset.weighted` | as macro, each class weighing as much as it has pixels in the truth |
| `R.image.macro`, `.micro`, `.weighted` | the same within each image, then the mean over images |
| `R.image.macro_empty1` | as `R.image.macro`, but a class that is in neither truth nor prediction of an image counts 1 there |
| `R.class.NAME` | counts summed over all images, then R of that class |
| `R.image.class.NAME` | R of that class within each image, the mean over the images that it is in (truth or prediction) |
| `R.image.class_empty1.NAME` | the mean over all images, those without the class counting 1 |
| `accuracy.pixel` | share of all counted pixels that got their class |
| `accuracy.dataset.macro`, `accuracy.image.macro` | share of a class's true pixels that got it, the mean over classes in the truth |
| `mcc.dataset.multiclass`, `mcc.image.multiclass` | Matthews correlation of all classes at once |
| `mcc.class.NAME` | Matthews correlation of that class against the rest, counts summed over all images |

R is `iou` (Jaccard), `dice` (F1), `precision` or `recall`. Where classes overlap, the accuracies and Matthews correlations, which are
of pixels that share themselves out among classes, do not exist.

Empty masks: a class that is neither in the truth nor in the prediction is left out of a macro average; one that is predicted
but not there, or there but never predicted, counts 0. Pixels whose truth is `IGNORE` count nowhere, whatever is predicted. An
image without a counted pixel is left out of the mean over images. Where nothing is left to average, a score does not exist:
NaN in arrays, None in `scores`, and no key in JSON. The names with `empty1` are the only ones that reward absence.

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
"""The score that candidates are ranked by (on the validation split) and that every table leads with."""

RATIOS: Mapping[str, Callable[[Any, Any, Any], tuple[Any, Any]]] = {
    "iou": lambda hits, truth, predicted: (hits, truth + predicted - hits),
    "dice": lambda hits, truth, predicted: (2 * hits, truth + predicted),
    "precision": lambda hits, truth, predicted: (hits, predicted),
    "recall": lambda hits, truth, predicted: (hits, truth),
}
"""(hits, pixels in the truth, pixels predicted) -> (numerator, denominator)."""


def per_class(ratio: str, tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (..., n_classes): the ratio of each class, NaN for a class that is nowhere."""
    return _ratio(ratio, tally[..., 0, :], tally[..., 1, :], tally[..., 2, :])


def macro(ratio: str, tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (...): the mean over the classes that are anywhere; NaN where none is."""
    return _mean(per_class(ratio, tally))


def micro(ratio: str, tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (...): the ratio of the counts summed over classes; NaN where nothing counts."""
    total = tally.sum(-1)
    return _ratio(ratio, total[..., 0], total[..., 1], total[..., 2])


def weighted(ratio: str, tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (...): the mean over classes by their pixels in the truth (IoU: frequency-weighted IoU).

    A class that is only predicted has no weight: its pixels are missing from the classes that they belong to.
    """
    truth = tally[..., 1, :]
    value = np.nan_to_num(per_class(ratio, tally))
    return _divide((truth * value).sum(-1), truth.sum(-1), otherwise=np.nan)


def accuracy_macro(tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (...): mean class accuracy, over the classes in the truth alone; NaN where none is."""
    hits, truth = tally[..., 0, :], tally[..., 1, :]
    return _mean(_divide(hits, truth, otherwise=np.nan))


def matthews(tally: Tallies) -> Values:
    """(..., 3, n_classes) -> (...): the multi-class Matthews correlation, -1..1 (Gorodkin's R_K).

    0 where only truth or only prediction is a single class, or both are one and differ; NaN where both are the same single
    class: there is nothing to correlate, which is the correlation's way of saying that both are empty.
    """
    size = tally[..., 1, :].sum(-1)
    share = _divide(tally, size[..., None, None], otherwise=0.0)  # of all pixels: squares of counts would lose digits
    hits, truth, predicted = share[..., 0, :].sum(-1), share[..., 1, :], share[..., 2, :]
    spread = (truth * (1 - truth)).sum(-1) * (predicted * (1 - predicted)).sum(-1)
    value = _divide(hits - (truth * predicted).sum(-1), np.sqrt(spread), otherwise=0.0)
    alike = (tally[..., 0, :] == size[..., None]).any(-1)
    return np.where(alike, np.nan, value)


def _ratio(ratio: str, hits: Any, truth: Any, predicted: Any) -> Values:
    """NaN where there is nothing in truth and prediction; 0 where there is, and nothing to divide by."""
    value = _divide(*RATIOS[ratio](hits, truth, predicted), otherwise=0.0)
    return np.where(truth + predicted > 0, value, np.nan)


def _mean(values: Values) -> Values:
    """The mean over the last axis of what is not NaN."""
    there = ~np.isnan(values)
    return _divide(np.where(there, values, 0.0).sum(-1), there.sum(-1), otherwise=np.nan)


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
    """One class against the rest: as tallies of two classes."""
    own = tally[..., index]
    size = tally[..., 1, :].sum(-1)
    hits, truth, predicted = own[..., 0], own[..., 1], own[..., 2]
    rest = np.stack([size - truth - predicted + hits, size - truth, size - predicted], -1)
    return matthews(np.stack([own, rest], -1))


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


def _table(classes: Sequence[str], overlapping: bool) -> dict[str, Metric]:
    """Every metric by name."""
    found: list[Metric] = []
    levels: tuple[Literal["dataset", "image"], ...] = ("dataset", "image")
    for ratio in RATIOS:
        for level in levels:
            averages = {"macro": macro, "micro": micro, "weighted": weighted}
            found += [Metric(f"{ratio}.{level}.{name}", level, partial(of, ratio)) for name, of in averages.items()]
        found.append(Metric(f"{ratio}.image.macro_empty1", "image", partial(_macro_empty1, ratio)))
        for index, name in enumerate(classes):
            found += [
                Metric(f"{ratio}.class.{name}", "dataset", partial(_of_class, ratio, index)),
                Metric(f"{ratio}.image.class.{name}", "image", partial(_of_class, ratio, index)),
                Metric(f"{ratio}.image.class_empty1.{name}", "image", partial(_of_class_empty1, ratio, index)),
            ]
    if overlapping:
        return {metric.name: metric for metric in found}
    found.append(Metric("accuracy.pixel", "dataset", partial(micro, "recall")))
    for level in levels:
        found.append(Metric(f"accuracy.{level}.macro", level, accuracy_macro))
        found.append(Metric(f"mcc.{level}.multiclass", level, matthews))
    found += [Metric(f"mcc.class.{n}", "dataset", partial(_matthews_of_class, i)) for i, n in enumerate(classes)]
    return {metric.name: metric for metric in found}


def metric_names(classes: Sequence[str], overlapping: bool = False) -> list[str]:
    """All the names that `metric` knows."""
    return list(_table(classes, overlapping))


def metric(name: str, classes: Sequence[str], overlapping: bool = False) -> Metric:
    """The score of this name; a `ConfigError` with the nearest known name where there is none."""
    known = _table(classes, overlapping)
    if name not in known:
        if overlapping and name in _table(classes, False):
            raise ConfigError(
                "does not exist where classes overlap", found=name, fix=f"use {MAIN_METRIC}, or iou.class.NAME"
            )
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        raise ConfigError("no such metric", found=name, fix=fix)
    return known[name]


def scores(tally: Tallies, classes: Sequence[str], overlapping: bool = False) -> dict[str, float | None]:
    """Every metric of a dataset by name, from the tallies of its images, (n, 3, n_classes); None where it does not exist."""
    seen = {"dataset": tally.sum(0, keepdims=True), "image": tally}
    values = {name: metric.value(seen[metric.level]) for name, metric in _table(classes, overlapping).items()}
    return {name: None if np.isnan(value) else value for name, value in values.items()}

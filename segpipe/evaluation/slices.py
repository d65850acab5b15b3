"""Slices: parts of the test images with a common attribute, each with its own score and comparison with the champion.

An attribute with few values gives one slice per value (`colour` = grey, `group` = patient 7); an attribute with many numbers is cut
into thirds (`brightness` = low third); every class gives a slice of the images that show it. Slices overlap, which Holm's correction
allows: it assumes nothing about how tests depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segpipe.config import EvaluateParams
from segpipe.evaluation.metric_lookup import compare_on, interval_of
from segpipe.evaluation.metrics_file import DIGITS, SliceScore
from segpipe.evaluation.paired_statistics import Comparison, holm
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.slice_attributes import AttributeValue
from segpipe.metrics import MAIN_METRIC

MAX_TEXTS = 12
"""A text attribute with more values gives no slices."""

MAX_NUMBERS = 6
"""A numeric attribute with more values is cut into thirds."""

MIN_IMAGES = 5
"""Smaller slices have no score of their own in metrics.json."""

_THIRDS = ("low third", "middle third", "high third")


@dataclass(frozen=True)
class Slice:
    """Some of the images.

    Attributes:
        attribute: such as "brightness".
        value: such as "low third".
        members: (images,), bool, in the order of the scores that the slice was cut from.
    """

    attribute: str
    value: str
    members: npt.NDArray[np.bool_]

    @property
    def name(self) -> str:
        """The slice in words: "brightness: low third"."""
        return f"{self.attribute}: {self.value}"

    def select(self, scores: Scores) -> Scores:
        """Return the counts of these images only."""
        return scores.at(np.flatnonzero(self.members))


def cut_slices(scores: Scores, min_images: int = MIN_IMAGES) -> list[Slice]:
    """Cut the images of a split into slices.

    Args:
        scores: the counts of the images, with their attributes.
        min_images: smaller slices are left out, and so are slices of all images.

    Returns:
        The slices by attribute and value.
    """
    slices: list[Slice] = []
    for attribute in sorted({name for row in scores.attributes for name in row}):
        slices += _slices_of(attribute, [row.get(attribute) for row in scores.attributes])
    present = scores.tally[:, 1] > 0
    slices += [Slice("with class", name, present[:, i]) for i, name in enumerate(scores.classes)]
    return [part for part in slices if min_images <= np.count_nonzero(part.members) < len(part.members)]


def _slices_of(attribute: str, values: Sequence[AttributeValue | None]) -> list[Slice]:
    known = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
    numeric = all(isinstance(v, float) for v in known)
    if attribute == "pixels":  # if there are few sizes, `size` gives their slices
        return [] if len(known) <= MAX_TEXTS else _thirds(attribute, values)
    if len(known) > (MAX_NUMBERS if numeric else MAX_TEXTS):
        return _thirds(attribute, values) if numeric else []
    return [
        Slice(
            attribute, value if isinstance(value, str) else f"{value:g}", np.array([v == value for v in values], bool)
        )
        for value in known
    ]


def _thirds(attribute: str, values: Sequence[AttributeValue | None]) -> list[Slice]:
    """Cut into thirds by value. Images with equal values are in one third, the lowest one that such an image belongs to."""
    numbers = np.array([np.nan if v is None else float(v) for v in values])
    known = np.sort(numbers[~np.isnan(numbers)])
    ends = [known[-(-len(known) // 3) - 1], known[-(-2 * len(known) // 3) - 1], np.inf]
    starts = [-np.inf, *ends[:-1]]
    thirds = zip(_THIRDS, starts, ends, strict=True)
    return [Slice(attribute, name, (numbers > start) & (numbers <= end)) for name, start, end in thirds]


def score_slices(scores: Scores, params: EvaluateParams) -> dict[str, dict[str, SliceScore]]:
    """Compute the main metric on each slice, for metrics.json.

    Args:
        scores: the counts of the images, with their attributes.
        params: the number of resamples and the confidence of intervals.

    Returns:
        Scores by attribute and value; a slice on which the metric does not exist is left out.
    """
    table: dict[str, dict[str, SliceScore]] = {}
    for part in cut_slices(scores):
        selected = part.select(scores)
        interval = interval_of(MAIN_METRIC, selected, params)
        if np.isnan(interval.estimate):
            continue
        bounds = {"low": interval.low, "high": interval.high}
        rounded = {side: round(bound, DIGITS) for side, bound in bounds.items() if not np.isnan(bound)}
        score = SliceScore(images=len(selected.keys), score=round(interval.estimate, DIGITS), **rounded)
        table.setdefault(part.attribute, {})[part.value] = score
    return table


@dataclass(frozen=True)
class SliceComparison:
    """Two models compared on one slice.

    Attributes:
        slice: the slice.
        images: how many images it has.
        ours: the score of the first model.
        theirs: the score of the second model.
        comparison: the difference of the two.
        p_value: two-sided, with Holm's correction for the number of slices; NaN if there is no test.
    """

    slice: Slice
    images: int
    ours: float
    theirs: float
    comparison: Comparison
    p_value: float


def compare_slices(
    name: str, ours: Scores, theirs: Scores, params: EvaluateParams, min_images: int = MIN_IMAGES
) -> list[SliceComparison]:
    """Compare two models on each slice of the same images.

    Args:
        name: the metric.
        ours: the counts of the first model; its attributes make the slices.
        theirs: the counts of the second model, on the same images in the same order.
        params: the number of resamples and the confidence of intervals.
        min_images: smaller slices are left out.

    Returns:
        One comparison per slice; slices on which the metric does not exist for both models are left out.

    Raises:
        ConfigError: there is no metric of this name, or a model has no instance scores.
    """
    rows: list[SliceComparison] = []
    for part in cut_slices(ours, min_images):
        first, second = part.select(ours), part.select(theirs)
        values = first.value(name), second.value(name)
        if values[0] is None or values[1] is None:
            continue
        comparison = compare_on(name, first, second, params)
        rows.append(SliceComparison(part, len(first.keys), values[0], values[1], comparison, comparison.p_value))
    corrected = holm(np.array([row.p_value for row in rows]))
    return [replace(row, p_value=float(p)) for row, p in zip(rows, corrected, strict=True)]

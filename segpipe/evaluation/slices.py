"""Slices: parts of the test images that have something in common, each with its own score and, beside a champion, its own verdict.

A trait with few values makes a slice of each (`colour` = grey, `group` = patient 7); a trait with many numbers is cut into
thirds (`brightness` = low third); every class makes a slice of the images that it is in. Slices overlap: Holm's correction
asks nothing of how tests depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.config import EvaluateParams
from segpipe.evaluation.metric_lookup import compare_on, interval_of
from segpipe.evaluation.paired_statistics import Comparison, holm
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.slice_attributes import AttributeValue
from segpipe.metrics import MAIN_METRIC

MAX_TEXTS = 12
"""A trait of words with more values makes no slices."""

MAX_NUMBERS = 6
"""A trait of numbers with more values is cut into thirds."""

MIN_IMAGES = 5
"""A slice of fewer images gets no score of its own in metrics.json."""

_THIRDS = ("low third", "middle third", "high third")


@dataclass(frozen=True)
class Slice:
    """Some of the images. members: (images,), bool, in the order of the scores that it was cut from."""

    trait: str
    value: str
    members: npt.NDArray[np.bool_]

    @property
    def name(self) -> str:
        """In words: "brightness: low third"."""
        return f"{self.trait}: {self.value}"

    def of(self, scores: Scores) -> Scores:
        """The counts of these images alone."""
        return scores.at(np.flatnonzero(self.members))


def cut_slices(scores: Scores, least: int = MIN_IMAGES) -> list[Slice]:
    """The slices of the images behind these scores, by trait and value; those of fewer than `least` images, or of all, are none."""
    found: list[Slice] = []
    for trait in sorted({name for row in scores.traits for name in row}):
        found += _of_trait(trait, [row.get(trait) for row in scores.traits])
    there = scores.tally[:, 1] > 0
    found += [Slice("with class", name, there[:, i]) for i, name in enumerate(scores.classes)]
    return [s for s in found if least <= np.count_nonzero(s.members) < len(s.members)]


def _of_trait(trait: str, values: Sequence[AttributeValue | None]) -> list[Slice]:
    known = sorted({v for v in values if v is not None}, key=lambda v: (isinstance(v, str), v))
    numbers = all(isinstance(v, float) for v in known)
    if trait == "pixels":  # few sizes are told by `size`
        return [] if len(known) <= MAX_TEXTS else _thirds(trait, values)
    if len(known) > (MAX_NUMBERS if numbers else MAX_TEXTS):
        return _thirds(trait, values) if numbers else []
    return [
        Slice(trait, v if isinstance(v, str) else f"{v:g}", np.array([own == v for own in values], bool)) for v in known
    ]


def _thirds(trait: str, values: Sequence[AttributeValue | None]) -> list[Slice]:
    """Thirds by value: images of one value stand in one third, the lowest that it reaches into."""
    numbers = np.array([np.nan if v is None else float(v) for v in values])
    known = np.sort(numbers[~np.isnan(numbers)])
    ends = [known[-(-len(known) // 3) - 1], known[-(-2 * len(known) // 3) - 1], np.inf]
    starts = [-np.inf, *ends[:-1]]
    thirds = zip(_THIRDS, starts, ends, strict=True)
    return [Slice(trait, word, (numbers > start) & (numbers <= end)) for word, start, end in thirds]


def score_slices(scores: Scores, params: EvaluateParams) -> dict[str, dict[str, dict[str, Any]]]:
    """{trait: {value: {images, score, low, high}}} of the main metric, to six digits, for metrics.json; a slice on which the
    score does not exist is left out, and bounds where there are too few images for any."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for part in cut_slices(scores):
        own = part.of(scores)
        found = interval_of(MAIN_METRIC, own, params)
        if np.isnan(found.estimate):
            continue
        bounds = {"low": found.low, "high": found.high}
        row = {"score": found.estimate} | {k: v for k, v in bounds.items() if not np.isnan(v)}
        told = {"images": len(own.keys)} | {k: round(v, 6) for k, v in row.items()}
        table.setdefault(part.trait, {})[part.value] = told
    return table


@dataclass(frozen=True)
class SliceComparison:
    """Two models on one slice. p_value: two-sided, Holm-corrected over all slices that were compared; NaN where there is none."""

    slice: Slice
    images: int
    ours: float
    theirs: float
    found: Comparison
    p_value: float


def compare_slices(
    name: str, ours: Scores, theirs: Scores, params: EvaluateParams, least: int = MIN_IMAGES
) -> list[SliceComparison]:
    """Two models on each slice of the same images, by the metric of this name. `theirs` has its images in the order of `ours`.

    Slices on which the metric does not exist for both are left out.
    """
    rows: list[SliceComparison] = []
    for part in cut_slices(ours, least):
        own, other = part.of(ours), part.of(theirs)
        values = own.value(name), other.value(name)
        if values[0] is None or values[1] is None:
            continue
        found = compare_on(name, own, other, params)
        rows.append(SliceComparison(part, len(own.keys), values[0], values[1], found, found.p_value))
    corrected = holm(np.array([row.p_value for row in rows]))
    return [replace(row, p_value=float(p)) for row, p in zip(rows, corrected, strict=True)]

"""Two models on the same images, in numbers and in one sentence: what `segpipe compare` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.config import EvaluateParams
from segpipe.evaluation.instance_metrics import is_instance
from segpipe.evaluation.metric_lookup import compare_on, describe_metric
from segpipe.evaluation.paired_statistics import Comparison, holm
from segpipe.evaluation.scores import Scores
from segpipe.gates.verdict_building import bound_words, confidence_words, none_if_nan
from segpipe.metrics import MAIN_METRIC
from segpipe.pages.components.forest import Forest, ForestRow, make_forest, slice_differences

PIXEL_METRICS = (
    MAIN_METRIC,
    "iou.image.macro",
    "dice.dataset.macro",
    "precision.dataset.macro",
    "recall.dataset.macro",
    "accuracy.pixel",
)
"""Scores of which the difference is told."""

INSTANCE_METRICS = ("instance.f1_50", "instance.pq")
"""Likewise, where both tell objects apart."""


@dataclass(frozen=True)
class ComparisonResult:
    """The second model less the first on the same images. metric: what they are held together by; before, after: their score, None
    where it does not exist; scores,
    classes: differences of `TABLED` and of every class's IoU (p values corrected over classes); slices: of `metric`."""

    metric: str
    before: float | None
    after: float | None
    found: Comparison
    scores: Forest | None
    classes: Forest | None
    slices: Forest | None
    same_answers: bool
    """Whether the two gave the same counts on every image."""

    @property
    def verdict(self) -> str:
        """better, worse or cannot tell: of the second model."""
        return "no different" if self.same_answers else self.found.verdict


def compare_models(before: Scores, after: Scores, params: EvaluateParams) -> ComparisonResult:
    """Compare two models by what they did on the same images in the same order: by the score that candidates are ranked by, or by
    `MAIN_METRIC` where that is one of objects and not both tell any apart."""
    both = before.objects is not None and after.objects is not None
    main = params.rank_by if both or not is_instance(params.rank_by) else MAIN_METRIC
    found = compare_on(main, after, before, params)
    tabled = [name for name in PIXEL_METRICS if after.knows(name)]
    names = dict.fromkeys([main, *tabled, *(INSTANCE_METRICS if both else ())])
    scores = _differences(before, after, [(describe_metric(name), name) for name in names], params)
    classes = _differences(
        before, after, [(name, f"iou.class.{name}") for name in after.classes], params, corrected=True
    )
    return ComparisonResult(
        main,
        before.value(main),
        after.value(main),
        found,
        scores,
        classes,
        slice_differences(after, before, params, main),
        _same_answers(before, after),
    )


def _same_answers(before: Scores, after: Scores) -> bool:
    pairs = ((before.tally, after.tally), (before.objects, after.objects), (before.object_iou, after.object_iou))
    return all(np.array_equal(*pair) for pair in pairs if pair[0] is not None and pair[1] is not None)


def _differences(
    before: Scores, after: Scores, named: Sequence[tuple[str, str]], params: EvaluateParams, corrected: bool = False
) -> Forest | None:
    """The paired difference of each of these metrics, (words, name), that exists for both."""
    rows = []
    for words, name in named:
        found = compare_on(name, after, before, params)
        if not np.isnan(found.difference.estimate):
            rows.append((words, found, after.value(name), before.value(name)))
    p_values = np.array([found.p_value for _, found, _, _ in rows])
    told = holm(p_values) if corrected else p_values
    made = [
        ForestRow(
            words,
            None,
            found.difference.estimate,
            none_if_nan(found.difference.low),
            none_if_nan(found.difference.high),
            ours,
            theirs,
            none_if_nan(p),
        )
        for (words, found, ours, theirs), p in zip(rows, told, strict=True)
    ]
    return make_forest([("", made)], apart=True)


def verdict_sentence(result: ComparisonResult, before: str, after: str) -> str:
    """The outcome: `after` beside `before`."""
    name, images = describe_metric(result.metric), f"{result.found.difference.units} images or groups"
    if result.before is None or result.after is None:
        return f"{after} and {before} can't be compared: nothing in these images counts for {name}."
    values = f"{name} of {result.after:.3f} beside {result.before:.3f}"
    if result.same_answers:
        return f"{after} and {before} do the same on every image: {values}."
    found = result.found.difference
    if np.isnan(found.low):
        return f"{after} scores {values}; a single image can't say whether that is luck."
    if result.verdict == "better":
        return f"{after} is better than {before}: {values}; with {confidence_words(found)} confidence it is {bound_words(found.low)}."
    if result.verdict == "worse":
        high = "not above" if found.high == 0 else f"at least {-found.high:.3f} below"
        return f"{after} is worse than {before}: {values}; with {confidence_words(found)} confidence it is {high}."
    return (
        f"Cannot tell {after} from {before}: {values}; the difference lies between {found.low:+.3f} and {found.high:+.3f}. "
        f"These {images} would show one of {result.found.detectable:.3f} four times in five."
    )


def as_json(result: ComparisonResult) -> dict[str, Any]:
    """For a program."""
    found = result.found.difference
    return {
        "verdict": result.verdict,
        "metric": result.metric,
        "before": result.before,
        "after": result.after,
        "difference": none_if_nan(found.estimate),
        "low": none_if_nan(found.low),
        "high": none_if_nan(found.high),
        "confidence": found.confidence,
        "p_value": none_if_nan(result.found.p_value),
        "detectable": none_if_nan(result.found.detectable),
        "scores": _rows(result.scores),
        "classes": _rows(result.classes),
        "slices": {trait: _rows_of(rows) for trait, rows in result.slices.groups} if result.slices else {},
    }


def _rows(found: Forest | None) -> list[dict[str, Any]]:
    return [row for _, rows in found.groups for row in _rows_of(rows)] if found else []


def _rows_of(rows: Sequence[ForestRow]) -> list[dict[str, Any]]:
    return [
        {
            "name": r.name,
            "before": r.theirs,
            "after": r.ours,
            "difference": r.value,
            "low": r.low,
            "high": r.high,
            "p_value": r.p,
        }
        | ({"images": r.images} if r.images is not None else {})
        for r in rows
    ]

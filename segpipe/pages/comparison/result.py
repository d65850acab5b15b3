"""The result of `segpipe compare`: the differences of two models on the same images, and the verdict in one sentence."""

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
"""The scores of pixels whose differences are shown."""

INSTANCE_METRICS = ("instance.f1_50", "instance.pq")
"""The scores of instances whose differences are shown if both models predict instances."""


@dataclass(frozen=True)
class ComparisonResult:
    """Two models on the same images. All differences are the second model's score minus the first model's."""

    metric: str
    """The metric that decides."""
    before: float | None
    """The score of the first model; None if it does not exist on these images."""
    after: float | None
    """The score of the second model; None if it does not exist on these images."""
    comparison: Comparison
    """The difference of `metric`."""
    scores: Forest | None
    """The differences of `PIXEL_METRICS` and `INSTANCE_METRICS`."""
    classes: Forest | None
    """The difference of the IoU of each class; p values are corrected for the number of classes."""
    slices: Forest | None
    """The difference of `metric` on each slice."""
    same_answers: bool
    """True if the two models gave the same counts on every image."""

    @property
    def verdict(self) -> str:
        """The second model is "better" or "worse" than the first, "no different", or "cannot tell"."""
        return "no different" if self.same_answers else self.comparison.verdict


def compare_models(before: Scores, after: Scores, params: EvaluateParams) -> ComparisonResult:
    """Compare two models by their scores on the same images in the same order.

    They are compared by the metric that candidates are ranked by, or by `MAIN_METRIC` if that is a score of instances and not both
    models predict instances.

    Args:
        before: Scores of the first model.
        after: Scores of the second model.
        params: The metric, and how intervals and p values are computed.
    """
    with_instances = before.instances is not None and after.instances is not None
    main = params.rank_by if with_instances or not is_instance(params.rank_by) else MAIN_METRIC
    known = [name for name in PIXEL_METRICS if after.knows(name)]
    names = dict.fromkeys([main, *known, *(INSTANCE_METRICS if with_instances else ())])
    class_metrics = [(name, f"iou.class.{name}") for name in after.classes]
    return ComparisonResult(
        main,
        before.value(main),
        after.value(main),
        compare_on(main, after, before, params),
        _differences(before, after, [(describe_metric(name), name) for name in names], params),
        _differences(before, after, class_metrics, params, corrected=True),
        slice_differences(after, before, params, main),
        _same_answers(before, after),
    )


def _same_answers(before: Scores, after: Scores) -> bool:
    pairs = (
        (before.tally, after.tally),
        (before.instances, after.instances),
        (before.instance_iou, after.instance_iou),
    )
    return all(np.array_equal(*pair) for pair in pairs if pair[0] is not None and pair[1] is not None)


def _differences(
    before: Scores, after: Scores, metrics: Sequence[tuple[str, str]], params: EvaluateParams, corrected: bool = False
) -> Forest | None:
    """Draw the paired difference of each metric (title, name) that exists for both; `corrected` adjusts p values by Holm's method."""
    compared = [(title, name, compare_on(name, after, before, params)) for title, name in metrics]
    compared = [row for row in compared if not np.isnan(row[2].difference.estimate)]
    p_values = np.array([comparison.p_value for _, _, comparison in compared])
    shown = holm(p_values) if corrected else p_values
    rows = [
        ForestRow.of_difference(title, comparison, after.value(name), before.value(name), p=float(p))
        for (title, name, comparison), p in zip(compared, shown, strict=True)
    ]
    return make_forest([("", rows)], differences=True)


def verdict_sentence(result: ComparisonResult, before: str, after: str) -> str:
    """Describe the result in one sentence. before, after: the names of the first and the second model."""
    metric, difference = describe_metric(result.metric), result.comparison.difference
    if result.before is None or result.after is None:
        return f"{after} and {before} cannot be compared: {metric} does not exist on these images."
    values = f"{metric} is {result.after:.3f} for {after} and {result.before:.3f} for {before}"
    if result.same_answers:
        return f"{after} and {before} give the same answers on every image: {values}."
    if np.isnan(difference.low):
        return f"{values}; a single image cannot show whether the difference is due to chance."
    if result.verdict == "better":
        bound = bound_words(difference.low)
        return f"{after} is better than {before}: {values}; with {confidence_words(difference)} confidence {after} is {bound}."
    if result.verdict == "worse":
        bound = "not above" if difference.high == 0 else f"at least {-difference.high:.3f} below"
        return f"{after} is worse than {before}: {values}; with {confidence_words(difference)} confidence {after} is {bound}."
    return (
        f"Cannot tell whether {after} is better than {before}: {values}; the difference is between {difference.low:+.3f} and "
        f"{difference.high:+.3f}. With these {difference.units} images or groups, a difference of "
        f"{result.comparison.detectable:.3f} would be detected in four of five cases."
    )


def as_json(result: ComparisonResult) -> dict[str, Any]:
    """Return the result as `segpipe compare --json` prints it."""
    difference = result.comparison.difference
    return {
        "verdict": result.verdict,
        "metric": result.metric,
        "before": result.before,
        "after": result.after,
        "difference": none_if_nan(difference.estimate),
        "low": none_if_nan(difference.low),
        "high": none_if_nan(difference.high),
        "confidence": difference.confidence,
        "p_value": none_if_nan(result.comparison.p_value),
        "detectable": none_if_nan(result.comparison.detectable),
        "scores": _rows(result.scores),
        "classes": _rows(result.classes),
        "slices": {attribute: _group(rows) for attribute, rows in result.slices.groups} if result.slices else {},
    }


def _rows(forest: Forest | None) -> list[dict[str, Any]]:
    return [row for _, rows in forest.groups for row in _group(rows)] if forest else []


def _group(rows: Sequence[ForestRow]) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "before": row.theirs,
            "after": row.ours,
            "difference": row.value,
            "low": row.low,
            "high": row.high,
            "p_value": row.p,
        }
        | ({"images": row.images} if row.images is not None else {})
        for row in rows
    ]

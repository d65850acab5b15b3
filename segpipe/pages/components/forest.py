"""Forest plots: one row per score or difference, with its confidence interval, on a common axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segpipe.config import EvaluateParams
from segpipe.evaluation.metrics_file import SliceScore
from segpipe.evaluation.paired_statistics import Comparison
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.slices import compare_slices
from segpipe.gates.verdict_building import none_if_nan
from segpipe.pages.components.axes import Axis, axis

AXIS_START, AXIS_END = 6.0, 294.0
"""The ends of the axes of scores, in pixels of an SVG that is 300 wide."""


@dataclass(frozen=True)
class ForestRow:
    """A row of a forest plot: the score of one model, or the difference of the scores of two models."""

    name: str
    images: int | None
    """The number of images behind it; None if it is not shown."""
    value: float
    """The score, or the difference: `ours` minus `theirs`."""
    low: float | None
    high: float | None
    """Bounds of the confidence interval of `value`; None if a single image gives none."""
    ours: float | None = None
    """If `value` is a difference, the score of the first model."""
    theirs: float | None = None
    """If `value` is a difference, the score of the second model."""
    p: float | None = None
    """p value of the difference."""

    @classmethod
    def of_difference(
        cls,
        name: str,
        comparison: Comparison,
        ours: float | None,
        theirs: float | None,
        p: float | None = None,
        images: int | None = None,
    ) -> ForestRow:
        """Make the row of a paired comparison.

        Args:
            name: What was compared.
            comparison: The difference with its interval.
            ours: Score of the first model.
            theirs: Score of the second model.
            p: The p value to show, if it was corrected for several tests; by default that of the comparison.
            images: How many images were compared, if that is shown.
        """
        difference = comparison.difference
        low, high = none_if_nan(difference.low), none_if_nan(difference.high)
        p_value = none_if_nan(comparison.p_value if p is None else p)
        return cls(name, images, difference.estimate, low, high, ours, theirs, p_value)

    @property
    def tone(self) -> str:
        """The side of 0 on which the interval of a difference lies: "above", "below", or "unsure" if it includes 0."""
        if self.low is None or self.high is None:
            return "unsure"
        return "above" if self.low > 0 else "below" if self.high < 0 else "unsure"


@dataclass(frozen=True)
class Forest:
    """A forest plot."""

    groups: list[tuple[str, list[ForestRow]]]
    """(title, rows)."""
    axis: Axis
    """The axis that holds all rows."""
    differences: bool
    """True if values are differences, so that a line is drawn at 0."""


def make_forest(groups: Sequence[tuple[str, list[ForestRow]]], differences: bool) -> Forest | None:
    """Make a forest plot; None if there is no row.

    Args:
        groups: (title, rows); groups without rows are left out.
        differences: Whether values are differences, so that 0 is on the axis.
    """
    rows = [row for _, members in groups for row in members]
    if not rows:
        return None
    values = [v for row in rows for v in (row.value, row.low, row.high) if v is not None]
    scale = axis(values + [0.0] * differences, AXIS_START, AXIS_END)
    return Forest([(title, members) for title, members in groups if members], scale, differences)


def slice_differences(ours: Scores, theirs: Scores, params: EvaluateParams, main: str) -> Forest | None:
    """Compare two models on each slice of the test images.

    Args:
        ours: Scores of the first model.
        theirs: Scores of the second model, on the same images in the same order.
        params: How intervals and p values are computed.
        main: The metric to compare.

    Returns:
        The differences, grouped by slice attribute; None if there are no slices.
    """
    groups: dict[str, list[ForestRow]] = {}
    for row in compare_slices(main, ours, theirs, params):
        line = ForestRow.of_difference(row.slice.value, row.comparison, row.ours, row.theirs, row.p_value, row.images)
        groups.setdefault(row.slice.attribute, []).append(line)
    return make_forest(list(groups.items()), differences=True)


def slice_scores(table: Mapping[str, Mapping[str, SliceScore]]) -> Forest | None:
    """Show the score of one model on each slice.

    Args:
        table: `test.slices` of metrics.json: {attribute: {value: {score, images, low, high}}}.

    Returns:
        The scores, grouped by slice attribute; None if there are no slices.
    """
    return make_forest([(attribute, _rows(values)) for attribute, values in table.items()], differences=False)


def _rows(values: Mapping[str, SliceScore]) -> list[ForestRow]:
    return [ForestRow(value, row.images, row.score, row.low, row.high) for value, row in values.items()]

"""Rows of the report's tables: the ranking of candidates, and the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.config import EvaluateParams, Params
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval, bootstrap_all, resampling_units, statistic
from segpipe.gates.selection import Bounds, Selection
from segpipe.gates.verdict_building import none_if_nan
from segpipe.metrics import RATIOS, metric, per_class
from segpipe.pages.components.axes import Axis, axis
from segpipe.pages.components.forest import AXIS_END, AXIS_START
from segpipe.pages.filters import hex_color
from segpipe.samples import ClassTable


@dataclass(frozen=True)
class RankingRow:
    """A row of the ranking: a candidate, or the champion."""

    name: str
    kind: str
    role: str
    """One of "winner", "baseline" and "champion", or empty."""
    rank: int
    """Position in the table, from 0, which fixes the colour."""
    val: float | None
    test: Mapping[str, float | None]
    interval: Bounds | None
    """The confidence interval of the main metric on the test images."""


def ranking_rows(selection: Selection) -> list[RankingRow]:
    """Return the candidates in the order of the ranking, then the champion if there is one."""
    roles = {selection.winner: "winner"}
    baseline = next((entry.candidate for entry in selection.ranking if entry.kind == "classical"), None)
    roles |= {baseline: "baseline"} if baseline else {}
    rows = [
        RankingRow(
            entry.candidate,
            f"{entry.family}, {entry.kind}",
            roles.get(entry.candidate, ""),
            rank,
            entry.val,
            entry.test,
            entry.interval,
        )
        for rank, entry in enumerate(selection.ranking)
    ]
    if champion := selection.champion:
        rows.append(RankingRow(champion.version, "live", "champion", len(rows), None, champion.test, champion.interval))
    return rows


def score_axis(rows: Sequence[RankingRow], params: Params, main: str) -> Axis:
    """Make the axis for the intervals of the main metric. A floor that is far below them is not on it."""
    values = [v for row in rows for v in (row.test.get(main), *_ends(row.interval)) if v is not None]
    floor = params.gates.floor
    if floor and floor.metric == main and values and floor.at_least > 2 * min(values) - max(values):
        values.append(floor.at_least)
    return axis(values, AXIS_START, AXIS_END, least=0.0)


def _ends(bounds: Bounds | None) -> tuple[float, ...]:
    return (bounds.low, bounds.high) if bounds else ()


@dataclass(frozen=True)
class ClassRow:
    """The scores of one class."""

    name: str
    color: str
    iou: float | None
    low: float | None
    high: float | None
    """Bounds of the interval of the IoU."""
    dice: float | None
    precision: float | None
    recall: float | None
    boundary: float | None
    """Boundary IoU."""
    others: list[tuple[str, float]]
    """The IoU of the other candidates, by name."""
    share: float
    """Share of the labelled test pixels."""


def class_rows(scores: Mapping[str, Scores], shown: str, classes: ClassTable, params: EvaluateParams) -> list[ClassRow]:
    """Compute the row of each class.

    Args:
        scores: Scores on the test images, by candidate.
        shown: The candidate whose scores are shown; the others appear with their IoU only.
        classes: Names and colours.
        params: How intervals are computed.
    """
    totals = {name: one.tally.sum(0) for name, one in scores.items()}
    ratios = {ratio: per_class(ratio, totals[shown]) for ratio in RATIOS}
    others = {name: per_class("iou", tally) for name, tally in totals.items() if name != shown}
    intervals = class_intervals(scores[shown], params)
    pixels = totals[shown][1]
    boundary = scores[shown].boundary_iou()
    return [
        ClassRow(
            spec.name,
            hex_color(spec.color),
            **{ratio: none_if_nan(ratios[ratio][i]) for ratio in RATIOS},
            low=none_if_nan(intervals[i].low),
            high=none_if_nan(intervals[i].high),
            boundary=boundary.get(f"boundary_iou.class.{spec.name}"),
            others=[(name, float(iou[i])) for name, iou in others.items() if not np.isnan(iou[i])],
            share=float(pixels[i] / max(scores[shown].confusion.sum(), 1)),
        )
        for i, spec in enumerate(classes.classes)
    ]


def class_intervals(scores: Scores, params: EvaluateParams) -> list[Interval]:
    """Compute the confidence interval of the IoU of each class, all from the same resamples."""
    units = resampling_units(scores.groups)
    parts = [statistic(metric(f"iou.class.{name}", scores.classes), scores.tally, units) for name in scores.classes]
    return bootstrap_all(parts, int(units.max(initial=-1)) + 1, params.resamples, params.confidence)

"""The rows of the report's tables: candidates, classes, slices, each with its interval and beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from segpipe.pages.filters import hex_color

from segpipe.config import EvaluateParams, Params
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.slices import SliceComparison, compare_slices
from segpipe.evaluation.statistics import Interval, bootstrap_all, resampling_units, statistic
from segpipe.gates.selection import Bounds, Selection
from segpipe.metrics import RATIOS, metric, per_class
from segpipe.pages.components.axes import Axis, axis
from segpipe.samples import ClassTable


@dataclass(frozen=True)
class RankingRow:
    """A row of the ranking: a candidate, or what serves now."""

    name: str
    kind: str
    role: str
    place: int
    val: float | None
    test: Mapping[str, float | None]
    interval: Bounds | None


def ranking_rows(selection: Selection) -> list[RankingRow]:
    """The candidates in their order, then the champion."""
    roles = {selection.winner: "winner"}
    best_classical = next((e.candidate for e in selection.ranking if e.kind == "classical"), None)
    roles |= {best_classical: "baseline"} if best_classical else {}
    rows = [
        RankingRow(e.candidate, f"{e.family}, {e.kind}", roles.get(e.candidate, ""), place, e.val, e.test, e.interval)
        for place, e in enumerate(selection.ranking)
    ]
    if live := selection.champion:
        rows.append(RankingRow(live.version, "serving now", "champion", len(rows), None, live.test, live.interval))
    return rows


def score_axis(rows: Sequence[RankingRow], params: Params, main: str) -> Axis:
    """The axis on which all intervals of the main metric are drawn; a floor far below them is not on it."""
    values = [v for m in rows for v in (m.test.get(main), *_ends(m.interval)) if v is not None]
    floor = params.gates.floor
    if floor and floor.metric == main and values and floor.at_least > 2 * min(values) - max(values):
        values.append(floor.at_least)
    return axis(values, 6, 294, least=0.0)


def _ends(bounds: Bounds | None) -> tuple[float, ...]:
    return (bounds.low, bounds.high) if bounds else ()


@dataclass(frozen=True)
class ClassRow:
    """A class's scores with the candidate that is shown (boundary: boundary IoU; low, high: bounds of the IoU), its IoU with the
    others, and its share of the test pixels."""

    name: str
    color: str
    iou: float | None
    low: float | None
    high: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    boundary: float | None
    others: list[tuple[str, float]]
    share: float


def class_rows(scores: Mapping[str, Scores], shown: str, classes: ClassTable, params: EvaluateParams) -> list[ClassRow]:
    """A row a class. scores: by candidate."""
    total = {name: found.tally.sum(0) for name, found in scores.items()}
    values = {ratio: per_class(ratio, total[shown]) for ratio in RATIOS}
    others = {name: per_class("iou", tally) for name, tally in total.items() if name != shown}
    sure = class_intervals(scores[shown], params)
    pixels = total[shown][1]
    bands = scores[shown].boundary_iou()
    return [
        ClassRow(
            spec.name,
            hex_color(spec.color),
            **{ratio: known(values[ratio][i]) for ratio in RATIOS},
            low=known(sure[i].low),
            high=known(sure[i].high),
            boundary=bands.get(f"boundary_iou.class.{spec.name}"),
            others=[(n, float(v[i])) for n, v in others.items() if not np.isnan(v[i])],
            share=float(pixels[i] / max(scores[shown].confusion.sum(), 1)),
        )
        for i, spec in enumerate(classes.classes)
    ]


def class_intervals(scores: Scores, params: EvaluateParams) -> list[Interval]:
    """The interval of every class's IoU, from the same resamples."""
    units = resampling_units(scores.groups)
    parts = [statistic(metric(f"iou.class.{name}", scores.classes), scores.tally, units) for name in scores.classes]
    return bootstrap_all(parts, int(units.max(initial=-1)) + 1, params.resamples, params.confidence)


@dataclass(frozen=True)
class ForestRow:
    """A line of a forest plot: a value with its bounds; of two models, the difference, and both scores. p: corrected."""

    name: str
    images: int | None
    value: float
    low: float | None
    high: float | None
    ours: float | None = None
    theirs: float | None = None
    p: float | None = None

    @property
    def tone(self) -> str:
        """What the interval of a difference says."""
        if self.low is None or self.high is None:
            return "unsure"
        return "above" if self.low > 0 else "below" if self.high < 0 else "unsure"


@dataclass(frozen=True)
class Forest:
    """A forest plot: rows by trait, and the axis that holds them all. apart: whether values are differences, so that 0 is drawn."""

    groups: list[tuple[str, list[ForestRow]]]
    axis: Axis
    apart: bool


def forest(groups: Sequence[tuple[str, list[ForestRow]]], apart: bool) -> Forest | None:
    """None where there is no row."""
    rows = [row for _, own in groups for row in own]
    if not rows:
        return None
    values = [v for row in rows for v in (row.value, row.low, row.high) if v is not None] + ([0.0] if apart else [])
    return Forest([(name, own) for name, own in groups if own], axis(values, 6, 294), apart)


def slices_beside(ours: Scores, theirs: Scores, params: EvaluateParams, main: str) -> Forest | None:
    """The difference of two models (aligned) on each slice, of the metric `main`."""
    by_trait: dict[str, list[ForestRow]] = {}
    for row in compare_slices(main, ours, theirs, params):
        by_trait.setdefault(row.slice.trait, []).append(_slice_row(row))
    return forest(list(by_trait.items()), apart=True)


def _slice_row(row: SliceComparison) -> ForestRow:
    found = row.found.difference
    return ForestRow(
        row.slice.value,
        row.images,
        found.estimate,
        known(found.low),
        known(found.high),
        row.ours,
        row.theirs,
        known(row.p_value),
    )


def slices_alone(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Forest | None:
    """The score on each slice, as `test.slices` of metrics.json tells it."""
    return forest([(trait, _alone(values)) for trait, values in table.items()], apart=False)


def _alone(values: Mapping[str, Mapping[str, float]]) -> list[ForestRow]:
    told = [(value, row) for value, row in values.items() if {"score", "images"} <= row.keys()]
    return [ForestRow(v, int(r["images"]), r["score"], r.get("low"), r.get("high")) for v, r in told]


def known(value: float) -> float | None:
    """None for NaN."""
    return None if np.isnan(value) else float(value)

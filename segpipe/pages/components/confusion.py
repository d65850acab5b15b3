"""What the report's SVG charts are drawn from: curves of training, the cells of a heat map, reliability diagrams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.errors import DataError
from segpipe.evaluation.scores import Scores
from segpipe.files import read_bytes
from segpipe.metrics import Counts
from segpipe.pages.components.axes import Axis, axis
from segpipe.pages.report_inputs import CalibrationView, ReliabilityBin
from segpipe.samples import ClassTable

_MOST_POINTS = 160
"""Points of a drawn curve; a longer one is thinned."""


@dataclass(frozen=True)
class Curve:
    """A metric of one candidate over training steps."""

    candidate: str
    place: int
    """The candidate's place in the ranking, which fixes its colour."""
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class CurveChart:
    """One metric, a curve for each candidate, and the axes that hold them."""

    name: str
    curves: list[Curve]
    x: Axis
    y: Axis


def curve_charts(trainings: Mapping[str, Path], width: float, height: float, margin: float) -> list[CurveChart]:
    """A chart for each metric that dvclive wrote to FOLDER/plots/metrics; scores on val come first, then losses.

    trainings: the folder of each curve's training, by its name, in the order that fixes their colours.
    """
    found: dict[str, list[Curve]] = {}
    for place, (name, training) in enumerate(trainings.items()):
        folder = training / "plots" / "metrics"
        for path in sorted(folder.rglob("*.tsv")):
            points = _read_curve(path)
            if len(points) > 1:
                metric = path.relative_to(folder).with_suffix("").as_posix()
                found.setdefault(metric, []).append(Curve(name, place, points))
    charts = []
    for metric in sorted(found, key=lambda m: (not m.startswith("val"), "loss" not in m, m)):
        points = [p for curve in found[metric] for p in curve.points]
        x = Axis(min(p[0] for p in points), max(p[0] for p in points), margin, width - 8)
        y = axis([p[1] for p in points], height - 22, 8)
        charts.append(CurveChart(metric, found[metric], x, y))
    return charts


def _read_curve(path: Path) -> list[tuple[float, float]]:
    """The (step, value) pairs of a dvclive table, thinned; values that are no number are left out."""
    lines = read_bytes(path, 1 << 26).decode().splitlines()
    if not lines:
        return []
    columns = lines[0].split("\t")
    try:
        step, value = columns.index("step"), columns.index(path.stem)
        rows = [line.split("\t") for line in lines[1:]]
        points = [(float(row[step]), float(row[value])) for row in rows]
    except (ValueError, IndexError) as error:
        expected = f"columns step and {path.stem}"
        raise DataError("is no table of dvclive", where=path, found=lines[0][:80], expected=expected) from error
    points = [p for p in points if math.isfinite(p[1])]
    every = -(-len(points) // _MOST_POINTS)
    return points[::every] + ([points[-1]] if every > 1 and points[::every][-1] != points[-1] else [])


@dataclass(frozen=True)
class ConfusionCell:
    """One cell of the confusion matrix: its count, and its share of the pixels of the true class."""

    row: int
    column: int
    count: int
    share: float


def heat_cells(counts: Counts) -> list[ConfusionCell]:
    """The cells of a confusion matrix that hold anything, row by row."""
    totals = counts.sum(1)
    return [
        ConfusionCell(int(i), int(j), int(counts[i, j]), float(counts[i, j] / totals[i]))
        for i, j in np.argwhere(counts > 0)
    ]


def worst_confusions(counts: Counts, most: int) -> list[ConfusionCell]:
    """The largest shares off the diagonal: what is most often taken for something else."""
    off = [c for c in heat_cells(counts) if c.row != c.column]
    return sorted(off, key=lambda c: (-c.share, c.row, c.column))[:most]


@dataclass(frozen=True)
class ConfusionLabels:
    """The labels that confusions tell of, with their names and colours. counts: the matrices of them, one a model."""

    names: list[str]
    colors: list[str]
    counts: list[Counts]

    @classmethod
    def of(cls, scores: Sequence[Scores], classes: ClassTable | None) -> ConfusionLabels:
        """Of models with the same classes: the classes or, where they overlap, the sets of them that occur. classes: None where
        their colours are not known."""
        labelling = scores[0].labelling
        kept = np.arange(labelling.n_labels)
        if scores[0].overlapping:
            seen = np.sum([found.confusion.sum(0) + found.confusion.sum(1) for found in scores], axis=0)
            kept = np.flatnonzero((seen > 0) | (kept == 0))
        names = labelling.names(scores[0].classes)
        colors = [hex_color(c) for c in classes.palette.tolist()] if classes else ["transparent"] * len(names)
        matrices = [found.confusion[np.ix_(kept, kept)] for found in scores]
        return cls([names[k] for k in kept], [colors[k] for k in kept], matrices)


def hex_color(color: Sequence[int]) -> str:
    """(0, 128, 255) -> "#0080ff"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


@dataclass(frozen=True)
class Dot:
    """A bin of a reliability diagram, on pixels: where it stands, how many pixels it rests on (its radius), and in words."""

    x: float
    y: float
    r: float
    words: str


@dataclass(frozen=True)
class ReliabilityChart:
    """Confidence against the share that is right; on the diagonal a model is as right as it is sure."""

    axis: Axis
    """Of both directions; y is drawn upside down."""
    series: list[tuple[str, list[Dot]]]


def reliability_chart(view: CalibrationView, edge: float = 260) -> ReliabilityChart:
    """The diagram of a model as it ships and, where that was measured, before its temperature."""
    lowest = min(min(b.confidence, b.right) for b in (*view.bins, *view.before))
    scale = Axis(max(0.0, math.floor(10 * lowest) / 10 - 0.02), 1.0, 48, edge - 8)
    series = [("shipped", _dots(view.bins, scale, edge))]
    if view.before:
        series.insert(0, ("before temperature", _dots(view.before, scale, edge)))
    return ReliabilityChart(scale, series)


def _dots(bins: Sequence[ReliabilityBin], scale: Axis, edge: float) -> list[Dot]:
    return [
        Dot(
            scale(b.confidence),
            round(edge - scale(b.right), 2),
            round(2.5 + 9 * math.sqrt(b.share), 2),
            f"{b.confidence:.2f} sure, {b.right:.2f} right, {100 * b.share:.1f} % of the pixels",
        )
        for b in bins
    ]

"""What the report's SVG charts are drawn from: curves of training, the cells of a heat map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.data.axes import Axis, axis
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.metrics import Counts

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


def curve_charts(root: Path, candidates: list[str], width: float, height: float, margin: float) -> list[CurveChart]:
    """A chart for each metric that dvclive wrote to training/NAME/plots/metrics; scores on val come first, then losses."""
    found: dict[str, list[Curve]] = {}
    for place, name in enumerate(candidates):
        folder = root / "training" / name / "plots" / "metrics"
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
class Cell:
    """One cell of the confusion matrix: its count, and its share of the pixels of the true class."""

    row: int
    column: int
    count: int
    share: float


def heat_cells(counts: Counts) -> list[Cell]:
    """The cells of a confusion matrix that hold anything, row by row."""
    totals = counts.sum(1)
    return [
        Cell(int(i), int(j), int(counts[i, j]), float(counts[i, j] / totals[i])) for i, j in np.argwhere(counts > 0)
    ]  # fmt: skip


def worst_confusions(counts: Counts, most: int) -> list[Cell]:
    """The largest shares off the diagonal: what is most often taken for something else."""
    off = [c for c in heat_cells(counts) if c.row != c.column]
    return sorted(off, key=lambda c: (-c.share, c.row, c.column))[:most]

"""Curves of training: one chart per metric, one curve per candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.pages.components.axes import Axis, axis

CURVE_WIDTH, CURVE_HEIGHT = 340.0, 190.0
"""Size of a chart, in pixels of its SVG."""
_LEFT = 44.0
"""Room for the labels of the y axis, in the same pixels."""

_MAX_POINTS = 160
"""A longer curve is thinned to about this many points."""
_MAX_TABLE_BYTES = 1 << 26


@dataclass(frozen=True)
class Curve:
    """A metric of one candidate over training steps."""

    candidate: str
    rank: int
    """The candidate's position in the ranking, from 0, which fixes its colour."""
    points: list[tuple[float, float]]
    """(step, value)."""


@dataclass(frozen=True)
class CurveChart:
    """The curves of one metric, and the axes that hold them."""

    name: str
    curves: list[Curve]
    x: Axis
    y: Axis


def curve_charts(trainings: Mapping[str, Path]) -> list[CurveChart]:
    """Make a chart for each metric that DVCLive wrote during training.

    Args:
        trainings: The folder of each training, by the candidate's name, in the order that fixes the colours. Curves are read from
            FOLDER/plots/metrics/**/*.tsv; curves of a single point are left out.

    Returns:
        Scores on the validation split first, then losses, then the others.

    Raises:
        DataError: A file is not a table of DVCLive.
    """
    curves: dict[str, list[Curve]] = {}
    for rank, (name, training) in enumerate(trainings.items()):
        folder = training / "plots" / "metrics"
        for path in sorted(folder.rglob("*.tsv")):
            points = _read_curve(path)
            if len(points) > 1:
                metric = path.relative_to(folder).with_suffix("").as_posix()
                curves.setdefault(metric, []).append(Curve(name, rank, points))
    charts = []
    for metric in sorted(curves, key=lambda m: (not m.startswith("val"), "loss" not in m, m)):
        points = [p for curve in curves[metric] for p in curve.points]
        x = Axis(min(p[0] for p in points), max(p[0] for p in points), _LEFT, CURVE_WIDTH - 8)
        y = axis([p[1] for p in points], CURVE_HEIGHT - 22, 8)
        charts.append(CurveChart(metric, curves[metric], x, y))
    return charts


def _read_curve(path: Path) -> list[tuple[float, float]]:
    """Read the (step, value) pairs of a table of DVCLive, thinned; infinite values and NaN are left out."""
    lines = read_bytes(path, _MAX_TABLE_BYTES).decode().splitlines()
    if not lines:
        return []
    columns = lines[0].split("\t")
    try:
        step, value = columns.index("step"), columns.index(path.stem)
        rows = [line.split("\t") for line in lines[1:]]
        points = [(float(row[step]), float(row[value])) for row in rows]
    except (ValueError, IndexError) as error:
        raise DataError(
            "is not a table of DVCLive",
            where=path,
            found=lines[0][:80],
            expected=f"columns step and {path.stem}, with a number in each",
            fix="train the candidate again",
        ) from error
    points = [p for p in points if math.isfinite(p[1])]
    stride = -(-len(points) // _MAX_POINTS)
    thinned = points[::stride]
    return thinned if not points or thinned[-1] == points[-1] else [*thinned, points[-1]]

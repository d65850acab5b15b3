"""Reliability diagrams: how often a model is right, against how confident it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segpipe.pages.components.axes import Axis
from segpipe.pages.filters import percent
from segpipe.pages.report_inputs import CalibrationView, ReliabilityBin

_EDGE = 260.0
"""Width of the diagram, in pixels of its SVG."""
_LEFT, _RIGHT = 48.0, 8.0


@dataclass(frozen=True)
class ReliabilityDot:
    """One bin of a diagram, in pixels: its position, its radius (by its share of the pixels), and its numbers as text."""

    x: float
    y: float
    r: float
    text: str


@dataclass(frozen=True)
class ReliabilityChart:
    """Confidence against the share of correct pixels; a calibrated model lies on the diagonal."""

    axis: Axis
    """The axis of both directions; y is drawn upside down."""
    series: list[tuple[str, list[ReliabilityDot]]]
    """(name, dots)."""


def reliability_chart(view: CalibrationView) -> ReliabilityChart:
    """Draw the diagram of a model as it is shipped and, if that was measured, before temperature scaling."""
    lowest = min(min(b.confidence, b.right) for b in (*view.bins, *view.before))
    scale = Axis(max(0.0, math.floor(10 * lowest) / 10 - 0.02), 1.0, _LEFT, _EDGE - _RIGHT)
    series = [("as shipped", _dots(view.bins, scale))]
    if view.before:
        series.insert(0, ("before temperature scaling", _dots(view.before, scale)))
    return ReliabilityChart(scale, series)


def _dots(bins: Sequence[ReliabilityBin], scale: Axis) -> list[ReliabilityDot]:
    return [
        ReliabilityDot(
            scale(b.confidence),
            round(_EDGE - scale(b.right), 2),
            round(2.5 + 9 * math.sqrt(b.share), 2),
            f"confidence {b.confidence:.2f}, correct {b.right:.2f}, {percent(b.share)} of the pixels",
        )
        for b in bins
    ]

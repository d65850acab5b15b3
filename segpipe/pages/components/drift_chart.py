"""Charts of drift: the histogram of one quantity in the reference and in the current data, as the bars of an SVG."""

from __future__ import annotations

from typing import NamedTuple

from segpipe.drift.comparison import Drift
from segpipe.pages.filters import percent

WIDTH, HEIGHT = 340, 128
"""Size of the chart, in pixels of its SVG."""
_TOP, _BOTTOM = 8.0, 104.0
_LEFT, _RIGHT = 4.0, WIDTH - 4.0
_BAR = 0.4
"""Width of a bar, as a share of its bin."""


class DriftBar(NamedTuple):
    """One bar of the chart."""

    series: str
    """The histogram that it belongs to: "before" (the reference) or "now"."""
    x: float
    y: float
    width: float
    height: float
    title: str
    """The bar's numbers as text, shown when it is pointed at."""


class DriftChart(NamedTuple):
    """One quantity: its histograms over the quantile bins of the reference."""

    drift: Drift
    bars: list[DriftBar]
    ticks: list[tuple[float, str]]
    """(x, label) of the first, the middle and the last limit of the bins."""
    summary: str
    """The chart as text, for screen readers."""


def draw_drift(drift: Drift) -> DriftChart:
    """Draw the chart of one quantity. Bins are equally wide, whatever their limits, so that bars of equal height mean no drift."""
    bins = len(drift.shares_before)
    step = (_RIGHT - _LEFT) / bins
    tallest = max(*drift.shares_before, *drift.shares_now)
    bars = []
    for index, shares in enumerate(zip(drift.shares_before, drift.shares_now, strict=True)):
        limits = f"{drift.edges[index]:.4g} to {drift.edges[index + 1]:.4g}"
        for side, (series, share) in enumerate(zip(("before", "now"), shares, strict=True)):
            height = share / tallest * (_BOTTOM - _TOP)
            x = _LEFT + index * step + step * (0.1 + _BAR * side)
            title = f"{limits}: {percent(share)} of the images {series}"
            y, width = round(_BOTTOM - height, 1), round(step * _BAR, 1)
            bars.append(DriftBar(series, round(x, 1), y, width, round(height, 1), title))
    middle = bins // 2
    ticks = [(_LEFT, drift.edges[0]), (_LEFT + middle * step, drift.edges[middle]), (_RIGHT, drift.edges[-1])]
    summary = f"{drift.quantity}: median {drift.before:.4g} before, {drift.now:.4g} now; PSI {drift.psi:.2f}, KS {drift.ks:.2f}"
    return DriftChart(drift, bars, [(round(x, 1), f"{value:.4g}") for x, value in ticks], summary)

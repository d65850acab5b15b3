"""What the page's drift charts are drawn from: bars in the pixels of an SVG of `WIDTH` x `HEIGHT`."""

from __future__ import annotations

from typing import NamedTuple

from segpipe.drift.comparison import Drift

WIDTH, HEIGHT = 340, 128
_TOP, _BOTTOM = 8.0, 104.0
_LEFT, _RIGHT = 4.0, WIDTH - 4.0


class DriftBar(NamedTuple):
    """A bar of the reference (`series` "before") or of today ("now"), with the words for those who point at it."""

    series: str
    x: float
    y: float
    width: float
    height: float
    title: str


class DriftChart(NamedTuple):
    """One quantity: its histogram then and now, over the quantile bins of the reference."""

    drift: Drift
    bars: list[DriftBar]
    ticks: list[tuple[float, str]]
    """(x, text) below the axis: the outermost limits and the middle one."""
    summary: str
    """The chart in words, for those who do not see it."""


def draw_drift(drift: Drift) -> DriftChart:
    """The chart of one quantity; bins are equally wide, whatever their limits, so that equal bars mean no drift."""
    bins = len(drift.shares_before)
    step = (_RIGHT - _LEFT) / bins
    tallest = max(*drift.shares_before, *drift.shares_now)
    bars = []
    for place, shares in enumerate(zip(drift.shares_before, drift.shares_now, strict=True)):
        limits = f"{drift.edges[place]:.4g} to {drift.edges[place + 1]:.4g}"
        for side, (series, share) in enumerate(zip(("before", "now"), shares, strict=True)):
            height = share / tallest * (_BOTTOM - _TOP)
            x = _LEFT + place * step + step * (0.1 + 0.4 * side)
            title = f"{limits}: {share:.1%} of the images {'then' if series == 'before' else 'now'}"
            bars.append(
                DriftBar(series, round(x, 1), round(_BOTTOM - height, 1), round(step * 0.4, 1), round(height, 1), title)
            )
    middle = bins // 2
    ticks = [(_LEFT, drift.edges[0]), (_LEFT + middle * step, drift.edges[middle]), (_RIGHT, drift.edges[-1])]
    summary = (
        f"{drift.quantity}: median {drift.before:.4g} then, {drift.now:.4g} now; PSI {drift.psi:.2f}, KS {drift.ks:.2f}"
    )
    return DriftChart(drift, bars, [(round(x, 1), f"{value:.4g}") for x, value in ticks], summary)

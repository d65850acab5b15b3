"""Numbers as the geometry of inline SVG; the macros of templates/charts.html draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from segpipe.pages.components.axes import Axis, LogAxis
from segpipe.pages.data_stats.histograms import Histogram
from segpipe.pages.data_stats.schema import ClassBalance, Size
from segpipe.pages.filters import short

WIDTH, HEIGHT = 340, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 8, 24
_BIGGEST_DOT, _SMALLEST_DOT = 16.0, 3.0
_MOST_DOTS = 300
_CELL = 7.0
"""Edge, in pixels of the chart, of the cells that sizes are put together in where there are too many to be told apart."""

Scale = Axis | LogAxis


@dataclass(frozen=True)
class HistogramBar:
    """Part of a bin: a rectangle, the place of its series, and what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True)
class HistogramChart:
    """A stacked histogram."""

    bars: list[HistogramBar]
    names: list[str]
    x: Scale
    y: Axis


def histogram_chart(found: Histogram) -> HistogramChart:
    """The rectangles of a histogram, series upon series."""
    low, high = found.edges[0], found.edges[-1]
    x: Scale = (LogAxis if found.scale == "log" else Axis)(low, high, _LEFT, WIDTH - _RIGHT)
    tallest = max(1, *(sum(column) for column in zip(*found.counts.values(), strict=True)))
    y = Axis(0, tallest, HEIGHT - _BOTTOM, _TOP)
    drawn = []
    for place, (lower, upper) in enumerate(pairwise(found.edges)):
        base = 0
        for index, (name, counts) in enumerate(found.counts.items()):
            n = counts[place]
            if n:
                told = f"{name}, " if len(found.counts) > 1 else ""
                gap = 0.5 if x(upper) - x(lower) > 3 else 0
                drawn.append(
                    HistogramBar(
                        x(lower) + gap,
                        y(base + n),
                        round(x(upper) - x(lower) - 2 * gap, 2),
                        round(y(base) - y(base + n), 2),
                        index,
                        f"{told}{short(lower)} to {short(upper)}: {n:,}",
                    )
                )
            base += n
    return HistogramChart(drawn, list(found.counts), x, y)


@dataclass(frozen=True)
class RibbonChart:
    """Images in order of a value, from left to right: a band from a lower to an upper value, a line in between."""

    band: str
    line: str
    y: Axis | LogAxis


def ribbon_chart(windows: Sequence[tuple[float, float, float]]) -> RibbonChart:
    """The window of each image around its mean. Where the highest is far above the usual one, the scale is logarithmic."""
    low, high = min(w[0] for w in windows), max(w[2] for w in windows)
    middle = sorted(w[2] for w in windows)[len(windows) // 2]
    y: Scale
    if low >= 0 and high > 30 * max(middle, 1e-9):
        y = LogAxis(
            max(min((w[1] for w in windows if w[1] > 0), default=1.0) / 10, high * 1e-7), high, HEIGHT - _TOP, _TOP
        )
    else:
        y = Axis(low, high if high > low else low + 1, HEIGHT - _TOP, _TOP)
    x = Axis(0, max(1, len(windows) - 1), _LEFT, WIDTH - _RIGHT)
    if len(windows) == 1:
        windows = [windows[0]] * 2
    upper = [f"{x(i)},{y(w[2])}" for i, w in enumerate(windows)]
    lower = [f"{x(i)},{y(w[0])}" for i, w in enumerate(windows)]
    line = [f"{x(i)},{y(w[1])}" for i, w in enumerate(windows)]
    return RibbonChart(" ".join(upper + lower[::-1]), " ".join(line), y)


@dataclass(frozen=True)
class SizeDot:
    """A circle of a scatter plot."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class ScatterChart:
    """Sizes of images: a dot a size (or a cell of similar ones), its area by how many there are."""

    dots: list[SizeDot]
    x: Scale
    y: Scale


def scatter_chart(sizes: Sequence[Size]) -> ScatterChart:
    """Width against height; both axes are logarithmic where either spans more than a factor of 8. The largest dots come first."""
    widths, heights = [s.width for s in sizes], [s.height for s in sizes]
    log = max(max(widths) / min(widths), max(heights) / min(heights)) > 8
    room = _BIGGEST_DOT + 2
    x = _axis(widths, _LEFT + room, WIDTH - _RIGHT - room, log)
    y = _axis(heights, HEIGHT - _BOTTOM - room, _TOP + room, log)
    places = _places(sizes, x, y)
    most = max(n for _, _, n, _ in places)
    biggest = _BIGGEST_DOT if len(places) < 60 else _CELL / 2
    smallest = _SMALLEST_DOT if len(places) < 60 else 1.0
    dots = [
        SizeDot(left, top, round(max(smallest, biggest * math.sqrt(n / most)), 2), f"{told}: {n:,}")
        for left, top, n, told in sorted(places, key=lambda place: -place[2])
    ]
    return ScatterChart(dots, x, y)


def _places(sizes: Sequence[Size], x: Scale, y: Scale) -> list[tuple[float, float, int, str]]:
    """Where dots go, how many images each stands for, and its words."""
    if len(sizes) <= _MOST_DOTS:
        return [
            (x(s.width), y(s.height), s.images, f"{s.width} × {s.height}" + (f" × {s.depth}" if s.depth else ""))
            for s in sizes
        ]
    cells: dict[tuple[int, int], list[Size]] = {}
    for size in sizes:
        cells.setdefault((round(x(size.width) / _CELL), round(y(size.height) / _CELL)), []).append(size)
    return [
        (column * _CELL, row * _CELL, sum(s.images for s in found), f"about {found[0].width} × {found[0].height}")
        for (column, row), found in cells.items()
    ]


def _axis(values: Sequence[float], start: float, end: float, log: bool) -> Scale:
    low, high = min(values), max(values)
    if log:
        return LogAxis(low, high if high > low else low * 2, start, end)
    return Axis(low, high, start, end) if high > low else Axis(low * 0.9, low * 1.1 + 1, start, end)


def share_axis(classes: Sequence[ClassBalance]) -> LogAxis:
    """Shares of pixels from the power of ten below the smallest to 1: what is rare can be told apart."""
    shares = [share for row in classes for share in row.share.values() if share > 0]
    lowest = 10.0 ** math.floor(math.log10(min([*shares, 0.1])) + 1e-9)
    return LogAxis(max(lowest, 1e-7), 1.0, 6, 294)

"""Charts of distributions: numbers become the geometry of SVG, which templates/parts/distribution_charts.html.j2 draws."""

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
"""Size of a chart, in pixels of its SVG."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 8, 24
"""Margins of a chart, in the same pixels."""

_MAX_RADIUS, _MIN_RADIUS = 16.0, 3.0
"""Radius of the dots of a scatter plot, if there are fewer than `_FEW_DOTS`."""
_FEW_DOTS = 60
_MAX_DOTS = 300
"""If there are more sizes, those within one cell become one dot."""
_CELL = 7.0
"""Edge of such a cell, in pixels of the chart."""

_MIN_SHARE = 1e-7
"""The axis of class shares does not begin below this share."""

Scale = Axis | LogAxis


@dataclass(frozen=True)
class HistogramBar:
    """The part of one bin that belongs to one series."""

    x: float
    y: float
    width: float
    height: float
    series: int
    """Index of the series, which fixes the colour."""
    title: str
    """Its numbers as text, shown when it is pointed at."""


@dataclass(frozen=True)
class HistogramChart:
    """A stacked histogram."""

    bars: list[HistogramBar]
    names: list[str]
    """The series."""
    x: Scale
    y: Axis


def histogram_chart(histogram: Histogram) -> HistogramChart:
    """Draw a histogram; series are stacked."""
    x: Scale = (LogAxis if histogram.scale == "log" else Axis)(
        histogram.edges[0], histogram.edges[-1], _LEFT, WIDTH - _RIGHT
    )
    tallest = max(1, *(sum(column) for column in zip(*histogram.counts.values(), strict=True)))
    y = Axis(0, tallest, HEIGHT - _BOTTOM, _TOP)
    bars = []
    for index, (lower, upper) in enumerate(pairwise(histogram.edges)):
        left, width = x(lower), x(upper) - x(lower)
        gap = 0.5 if width > 3 else 0
        base = 0
        for series, (name, counts) in enumerate(histogram.counts.items()):
            if number := counts[index]:
                prefix = f"{name}, " if len(histogram.counts) > 1 else ""
                title = f"{prefix}{short(lower)} to {short(upper)}: {number:,}"
                top, height = y(base + number), round(y(base) - y(base + number), 2)
                bars.append(HistogramBar(left + gap, top, round(width - 2 * gap, 2), height, series, title))
            base += number
    return HistogramChart(bars, list(histogram.counts), x, y)


@dataclass(frozen=True)
class RibbonChart:
    """Images in the order of a value, from left to right: a band from a lower to an upper value, with a line in between."""

    band: str
    """The points of the band's outline, for SVG."""
    line: str
    """The points of the line, for SVG."""
    y: Scale


def ribbon_chart(windows: Sequence[tuple[float, float, float]]) -> RibbonChart:
    """Draw the intensity window of each image around its mean.

    Args:
        windows: (low, mean, high) of each image, in the order in which they are drawn.

    Returns:
        The chart; its axis is logarithmic if the highest value is far above the typical one.
    """
    low, high = min(w[0] for w in windows), max(w[2] for w in windows)
    typical_high = sorted(w[2] for w in windows)[len(windows) // 2]
    y: Scale
    if low >= 0 and high > 30 * max(typical_high, 1e-9):
        lowest_mean = min((w[1] for w in windows if w[1] > 0), default=1.0)
        y = LogAxis(max(lowest_mean / 10, high * 1e-7), high, HEIGHT - _TOP, _TOP)
    else:
        y = Axis(low, high if high > low else low + 1, HEIGHT - _TOP, _TOP)
    x = Axis(0, max(1, len(windows) - 1), _LEFT, WIDTH - _RIGHT)
    drawn = list(windows) * (2 if len(windows) == 1 else 1)  # a line needs two points
    lower, line, upper = ([f"{x(i)},{y(w[part])}" for i, w in enumerate(drawn)] for part in range(3))
    return RibbonChart(" ".join(upper + lower[::-1]), " ".join(line), y)


@dataclass(frozen=True)
class SizeDot:
    """A circle of a scatter plot."""

    x: float
    y: float
    radius: float
    title: str
    """Its numbers as text, shown when it is pointed at."""


@dataclass(frozen=True)
class ScatterChart:
    """Image sizes: one dot per size, or per cell of similar sizes, whose area grows with the number of images."""

    dots: list[SizeDot]
    """The largest first, so that small ones are drawn over them."""
    x: Scale
    y: Scale


def scatter_chart(sizes: Sequence[Size]) -> ScatterChart:
    """Draw width against height. Both axes are logarithmic if one of them spans more than a factor of 8."""
    widths, heights = [s.width for s in sizes], [s.height for s in sizes]
    log = max(max(widths) / min(widths), max(heights) / min(heights)) > 8
    room = _MAX_RADIUS + 2
    x = _size_axis(widths, _LEFT + room, WIDTH - _RIGHT - room, log)
    y = _size_axis(heights, HEIGHT - _BOTTOM - room, _TOP + room, log)
    points = _points(sizes, x, y)
    most = max(images for _, _, images, _ in points)
    few = len(points) < _FEW_DOTS
    largest, smallest = (_MAX_RADIUS, _MIN_RADIUS) if few else (_CELL / 2, 1.0)
    dots = [
        SizeDot(left, top, round(max(smallest, largest * math.sqrt(images / most)), 2), f"{size}: {images:,}")
        for left, top, images, size in sorted(points, key=lambda point: -point[2])
    ]
    return ScatterChart(dots, x, y)


def _points(sizes: Sequence[Size], x: Scale, y: Scale) -> list[tuple[float, float, int, str]]:
    """Return (x, y, images, size as text) of each dot."""
    if len(sizes) <= _MAX_DOTS:
        return [
            (x(s.width), y(s.height), s.images, f"{s.width} × {s.height}" + (f" × {s.depth}" if s.depth else ""))
            for s in sizes
        ]
    cells: dict[tuple[int, int], list[Size]] = {}
    for size in sizes:
        cells.setdefault((round(x(size.width) / _CELL), round(y(size.height) / _CELL)), []).append(size)
    return [
        (column * _CELL, row * _CELL, sum(s.images for s in similar), f"about {similar[0].width} × {similar[0].height}")
        for (column, row), similar in cells.items()
    ]


def _size_axis(values: Sequence[float], start: float, end: float, log: bool) -> Scale:
    low, high = min(values), max(values)
    if log:
        return LogAxis(low, high if high > low else low * 2, start, end)
    return Axis(low, high, start, end) if high > low else Axis(low * 0.9, low * 1.1 + 1, start, end)


def share_axis(classes: Sequence[ClassBalance]) -> LogAxis:
    """Make the axis for shares of pixels, from the power of ten below the smallest one to 1; logarithmic, so that rare classes differ."""
    shares = [share for row in classes for share in row.share.values() if share > 0]
    lowest = 10.0 ** math.floor(math.log10(min([*shares, 0.1])) + 1e-9)
    return LogAxis(max(lowest, _MIN_SHARE), 1.0, 6, 294)

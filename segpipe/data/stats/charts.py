"""Numbers as the geometry of inline SVG; the macros of templates/charts.html draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from segpipe.data.axes import Axis, LogAxis
from segpipe.data.pages import short
from segpipe.data.stats.histograms import Histogram
from segpipe.data.stats.numbers import ClassBalance, Size

WIDTH, HEIGHT = 340, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 8, 24
_BIGGEST_DOT, _SMALLEST_DOT = 16.0, 3.0
_MOST_DOTS = 300

Scale = Axis | LogAxis


@dataclass(frozen=True)
class Bar:
    """Part of a bin: a rectangle, the place of its series, and what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True)
class Bars:
    """A stacked histogram."""

    bars: list[Bar]
    names: list[str]
    x: Scale
    y: Axis


def bars(found: Histogram) -> Bars:
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
                drawn.append(Bar(
                    x(lower) + gap, y(base + n), round(x(upper) - x(lower) - 2 * gap, 2), round(y(base) - y(base + n), 2), index,
                    f"{told}{short(lower)} to {short(upper)}: {n:,}",
                ))  # fmt: skip
            base += n
    return Bars(drawn, list(found.counts), x, y)


@dataclass(frozen=True)
class Ribbon:
    """Images in order of a value, from left to right: a band from a lower to an upper value, a line in between."""

    band: str
    line: str
    y: Axis | LogAxis


def ribbon(windows: Sequence[tuple[float, float, float]]) -> Ribbon:
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
    return Ribbon(" ".join(upper + lower[::-1]), " ".join(line), y)


@dataclass(frozen=True)
class Dot:
    """A circle of a scatter plot."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class Scatter:
    """Sizes of images: a dot a size, its area by how many there are."""

    dots: list[Dot]
    left_out: int
    x: Scale
    y: Scale


def scatter(sizes: Sequence[Size]) -> Scatter:
    """Width against height; both axes are logarithmic where either spans more than a factor of 8. The largest dots come first."""
    widths, heights = [s.width for s in sizes], [s.height for s in sizes]
    log = max(max(widths) / min(widths), max(heights) / min(heights)) > 8
    room = _BIGGEST_DOT + 2
    x, y = (
        _axis(values, start, end, log)
        for values, start, end in (
            (widths, _LEFT + room, WIDTH - _RIGHT - room),
            (heights, HEIGHT - _BOTTOM - room, _TOP + room),
        )
    )
    most = max(s.images for s in sizes)
    dots = []
    for size in sizes[:_MOST_DOTS]:
        radius = max(_SMALLEST_DOT, _BIGGEST_DOT * math.sqrt(size.images / most) if len(sizes) < 60 else _SMALLEST_DOT)
        depth = f" × {size.depth}" if size.depth else ""
        dots.append(
            Dot(
                x(size.width), y(size.height), round(radius, 2), f"{size.width} × {size.height}{depth}: {size.images:,}"
            )
        )
    return Scatter(dots, sum(s.images for s in sizes[_MOST_DOTS:]), x, y)


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

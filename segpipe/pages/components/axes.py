"""Axes of charts: they map values to pixels and choose round ticks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

_TOLERANCE = 1e-9
"""Rounding error that is allowed for ticks at the ends of an axis."""


@dataclass(frozen=True)
class Axis:
    """A linear axis that maps the values `low` to `high` to the pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values beyond the axis are drawn at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[float]:
        """About four round values (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990)."""
        raw_step = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(raw_step))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw_step * 0.7)
        first = math.ceil(self.low / step - _TOLERANCE)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + _TOLERANCE) + 1)]

    @property
    def digits(self) -> int:
        """Decimals, at least two, with which the labels of all ticks differ."""
        step = min((b - a for a, b in itertools.pairwise(self.ticks)), default=1.0)
        return max(2, math.ceil(-math.log10(step) - _TOLERANCE))


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis that maps the positive values `low` to `high` to the pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values beyond the axis are drawn at its end."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[float]:
        """Powers of ten, about six at most; if fewer than two lie on the axis, 1, 2 and 5 times powers of ten."""
        first = math.ceil(math.log10(self.low) - _TOLERANCE)
        last = math.floor(math.log10(self.high) + _TOLERANCE)
        powers = [10.0**p for p in range(first, last + 1, max(1, -(-(last - first) // 5)))]
        if len(powers) >= 2:
            return powers
        finer = [m * 10.0**p for p in range(first - 1, last + 1) for m in (1, 2, 5)]
        return [v for v in finer if self.low * (1 - _TOLERANCE) <= v <= self.high * (1 + _TOLERANCE)]


def axis(values: Iterable[float], start: float, end: float, pad: float = 0.08, least: float | None = None) -> Axis:
    """Make an axis that holds all values with some room at both ends.

    Args:
        values: What is drawn; infinite values and NaN are ignored.
        start: Pixel of the low end.
        end: Pixel of the high end; it may be below `start`, as pixels run down the page.
        pad: Room at each end, as a share of the range of the values.
        least: The axis does not begin below this value.
    """
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    span = max(finite) - min(finite)
    room = span * pad if span else max(abs(finite[0]) * 0.1, 0.01)
    low, high = min(finite) - room, max(finite) + room
    return Axis(low if least is None else max(low, least), high, start, end)

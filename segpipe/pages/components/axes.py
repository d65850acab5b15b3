"""Scales of drawn charts: values on pixels, with round ticks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Values `low` to `high` on pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value, kept on the axis."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[float]:
        """About four round values (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990)."""
        raw = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.7)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    @property
    def digits(self) -> int:
        """Decimal places that tell the ticks apart, two at least."""
        ticks = self.ticks
        step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
        return max(2, math.ceil(-math.log10(step) - 1e-9))


@dataclass(frozen=True)
class LogAxis:
    """Positive values `low` to `high` on pixels `start` to `end`, equal factors equally far apart."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value, kept on the axis."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[float]:
        """Powers of ten, every few of them where there are many; 1, 2 and 5 times these where there are fewer than two."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        powers = [10.0**p for p in range(first, last + 1, max(1, -(-(last - first) // 5)))]
        if len(powers) >= 2:
            return powers
        finer = [m * 10.0**p for p in range(first - 1, last + 1) for m in (1, 2, 5)]
        return [v for v in finer if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]


def axis(values: Iterable[float], start: float, end: float, pad: float = 0.08, least: float | None = None) -> Axis:
    """An axis that holds these values with some room on either side, but not below `least`."""
    known = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    span = max(known) - min(known)
    room = span * pad if span else max(abs(known[0]) * 0.1, 0.01)
    low, high = min(known) - room, max(known) + room
    return Axis(low if least is None else max(low, least), high, start, end)

"""Measure the time that each step of a video takes."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from pydantic import BaseModel

from segpipe.inference.engines.engine import Batch, Engine

STEPS = ("decode", "prepare", "network", "classes", "smoothing", "draw", "write")
_RATE_FRAMES = 30
"""Number of latest frames whose rate is shown in the corner of the video."""
_PERCENTILE_FRAMES = 20_000
"""Number of latest frames for percentiles: a camera may run for days."""


class StepTime(BaseModel):
    """Duration of one step, in milliseconds per frame."""

    step: str
    p50_ms: float
    """Median."""
    p95_ms: float
    """95th percentile."""
    share: float
    """Share of the time of all steps, 0..1. Steps overlap, so that their sum exceeds the elapsed time."""


class FrameRate:
    """Counts frames per second, over the latest frames."""

    def __init__(self) -> None:
        self._ticks: deque[float] = deque(maxlen=_RATE_FRAMES)

    def tick(self) -> float:
        """Count a frame and return the rate; 0 for the first frame."""
        self._ticks.append(time.perf_counter())
        elapsed = self._ticks[-1] - self._ticks[0]
        return (len(self._ticks) - 1) / elapsed if elapsed else 0.0


class Stopwatch:
    """Collects durations in seconds, by name. Each name is used by one thread only."""

    def __init__(self) -> None:
        self._durations: dict[str, deque[float]] = {
            name: deque(maxlen=_PERCENTILE_FRAMES) for name in (*STEPS, "latency")
        }
        self._total = dict.fromkeys(self._durations, 0.0)

    def add(self, name: str, seconds: float) -> None:
        """Add a duration."""
        self._durations[name].append(seconds)
        self._total[name] += seconds

    def percentiles(self, name: str) -> tuple[float, float]:
        """Return the 50th and the 95th percentile in milliseconds; 0 if there are no durations."""
        p50, p95 = 1000 * np.percentile(list(self._durations[name]) or [0.0], (50, 95))
        return round(float(p50), 3), round(float(p95), 3)

    def steps(self) -> list[StepTime]:
        """Return one row for each step that took any time."""
        total = sum(self._total[name] for name in STEPS)
        rows = [(name, *self.percentiles(name)) for name in STEPS if self._total[name]]
        return [
            StepTime(step=name, p50_ms=p50, p95_ms=p95, share=round(self._total[name] / total, 4))
            for name, p50, p95 in rows
        ]


class TimedEngine:
    """An engine that measures its calls for one frame.

    Attributes:
        first_call_at: `time.perf_counter()` at the first call since `start`; None if there was none.
        seconds: Total duration of the calls since `start`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name = engine, engine.name
        self.start()

    def start(self) -> None:
        """Start to measure another frame."""
        self.first_call_at: float | None = None
        self.seconds = 0.0

    def __call__(self, batch: Batch) -> Batch:
        """Compute the logits of a normalised batch. See `Engine.__call__`."""
        began = time.perf_counter()
        self.first_call_at = self.first_call_at or began
        logits = self._engine(batch)
        self.seconds += time.perf_counter() - began
        return logits

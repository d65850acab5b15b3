"""Where the time of a video goes, step by step."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from pydantic import BaseModel

from segpipe.inference.engines.engine import Batch, Engine

STEPS = ("decode", "prepare", "network", "classes", "smoothing", "draw", "write")
_RECENT = 30
"""The counter in the corner tells the rate of so many frames."""
_REMEMBERED = 20_000
"""Percentiles are over so many frames, the latest ones: a camera may run for days."""


class StepTime(BaseModel):
    """One step, in milliseconds a frame."""

    step: str
    p50_ms: float
    p95_ms: float
    share: float
    """Of the time of all steps together; they overlap, so that this is more than has passed."""


class FrameRate:
    """Frames a second, of the latest ones."""

    def __init__(self) -> None:
        self._ticks: deque[float] = deque(maxlen=_RECENT)

    def tick(self) -> float:
        """Count a frame: the rate with it; 0 of the first."""
        self._ticks.append(time.perf_counter())
        passed = self._ticks[-1] - self._ticks[0]
        return (len(self._ticks) - 1) / passed if passed else 0.0


class Stopwatch:
    """Durations in seconds by name. Each name belongs to one thread."""

    def __init__(self) -> None:
        self._taken: dict[str, deque[float]] = {name: deque(maxlen=_REMEMBERED) for name in (*STEPS, "latency")}
        self._total = dict.fromkeys(self._taken, 0.0)

    def add(self, name: str, seconds: float) -> None:
        """Count a duration."""
        self._taken[name].append(seconds)
        self._total[name] += seconds

    def percentiles(self, name: str) -> tuple[float, float]:
        """The 50th and the 95th percentile, in milliseconds; 0 where nothing was counted."""
        half, most = 1000 * np.percentile(list(self._taken[name]) or [0.0], (50, 95))
        return round(float(half), 3), round(float(most), 3)

    def steps(self) -> list[StepTime]:
        """A row for each step that took any time."""
        whole = sum(self._total[name] for name in STEPS)
        named = [(name, *self.percentiles(name)) for name in STEPS if self._total[name]]
        return [
            StepTime(step=name, p50_ms=half, p95_ms=most, share=round(self._total[name] / whole, 4))
            for name, half, most in named
        ]


class TimedEngine:
    """An engine that says when it was asked first and how long it took, since `start`."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name = engine, engine.name
        self.start()

    def start(self) -> None:
        """Begin with another image."""
        self.asked_at: float | None = None
        self.seconds = 0.0

    def __call__(self, batch: Batch) -> Batch:
        """Logits of a normalised batch."""
        began = time.perf_counter()
        self.asked_at = self.asked_at or began
        answer = self._engine(batch)
        self.seconds += time.perf_counter() - began
        return answer

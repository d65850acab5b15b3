"""What a prediction costs: how long it takes and how much memory, measured on this machine while nothing else is asked of it.

Measured figures differ from run to run, so they stand in metrics.json, which DVC does not cache, and nothing is chosen by them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

_IMAGES = 8
_RUNS = 32
_SECONDS = 6.0

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Latency(BaseModel):
    """Milliseconds of whole `predict` calls, one at a time: their median and the time within which 95 of 100 ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    engine: str
    images: int
    runs: int
    p50_ms: float
    p95_ms: float


class Cost(Latency):
    """The latency, objects with it where the dataset has any. peak_memory_mib: the most that the process held meanwhile (of a GPU, what
    tensors took of it); None where the system does not tell."""

    peak_memory_mib: int | None = None


def measure_cost(segmenter: Segmenter, reader: ShardReader, seconds: float = _SECONDS) -> Cost:
    """Time a model's answers to images of a split, spread evenly over it, after one to each that does not count."""
    places = np.unique(np.linspace(0, len(reader) - 1, min(_IMAGES, len(reader))).astype(int)).tolist()
    samples = [reader[place] for place in places]
    inputs = [{"image": s.image, "spacing": s.spacing, "instances": s.instances is not None} for s in samples]
    peak = _Peak(segmenter)
    timed = time_predictions(segmenter, inputs, _RUNS, seconds)
    return Cost(**timed.model_dump(), peak_memory_mib=peak.mib())


def time_predictions(segmenter: Segmenter, inputs: Sequence[Mapping[str, Any]], runs: int, seconds: float) -> Latency:
    """How long answers to these inputs, in turn, take: `runs` of them, or as many as `seconds` allow (one for each input at the
    least), after one to each that does not count."""
    for given in inputs:
        segmenter.predict(**given)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < len(inputs) or (len(taken) < runs and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        segmenter.predict(**inputs[len(taken) % len(inputs)])
        taken.append(1000 * (time.perf_counter() - start))
    half, most = (round(float(ms), 3) for ms in np.percentile(taken, (50, 95)))
    return Latency(engine=segmenter.engine.name, images=len(inputs), runs=len(taken), p50_ms=half, p95_ms=most)


class _Peak:
    """The most memory held since it was made. Linux resets a process's high-water mark where 5 is written into clear_refs."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.on_gpu = str(getattr(segmenter.engine, "device", "cpu")).startswith("cuda")
        self.known = True
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _RESET.write_text("5")
        except OSError:  # not Linux, or not allowed: the mark would be that of all that went before
            self.known = False

    def mib(self) -> int | None:
        if self.on_gpu:
            import torch

            return torch.cuda.max_memory_allocated() >> 20
        if not self.known:
            return None
        line = next((row for row in _STATUS.read_text().splitlines() if row.startswith("VmHWM:")), None)
        return None if line is None else int(line.split()[1]) >> 10

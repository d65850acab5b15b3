"""The cost of predictions: time and memory, measured on this machine while the model does nothing else.

The figures differ from run to run. Therefore they are in metrics.json, which DVC does not cache, and nothing is decided by them.
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
_RUNS = 20
_MAX_SECONDS = 2.0

_PROCESS_STATUS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Latency(BaseModel):
    """The time of whole `predict` calls in milliseconds, one call at a time: median and 95th percentile."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    engine: str
    images: int
    runs: int
    p50_ms: float
    p95_ms: float


class Cost(Latency):
    """Latency and memory of predictions, with instances if the dataset has any.

    `peak_memory_mib` is the peak memory of the process during the predictions (on a GPU, of its tensors); None if the system does not
    report it.
    """

    peak_memory_mib: int | None = None


def measure_cost(segmenter: Segmenter, reader: ShardReader, seconds: float = _MAX_SECONDS) -> Cost:
    """Measure the cost of predictions on images spread evenly over a split.

    Args:
        segmenter: the model.
        reader: the split.
        seconds: the time after which no further prediction starts.
    """
    indices = np.unique(np.linspace(0, len(reader) - 1, min(_IMAGES, len(reader))).astype(int)).tolist()
    samples = [reader[index] for index in indices]
    inputs = [{"image": s.image, "spacing": s.spacing, "instances": s.instances is not None} for s in samples]
    peak = _PeakMemory(segmenter)
    latency = time_predictions(segmenter, inputs, _RUNS, seconds)
    return Cost(**latency.model_dump(), peak_memory_mib=peak.mib())


def time_predictions(segmenter: Segmenter, inputs: Sequence[Mapping[str, Any]], runs: int, seconds: float) -> Latency:
    """Time predictions of these inputs in turn, after an untimed one of each size.

    Args:
        segmenter: the model.
        inputs: the arguments of `segmenter.predict`.
        runs: the number of timed predictions.
        seconds: the time after which no further prediction starts, once each input was timed.
    """
    for arguments in {arguments["image"].shape: arguments for arguments in inputs}.values():
        segmenter.predict(**arguments)
    times_ms: list[float] = []
    began = time.perf_counter()
    while len(times_ms) < len(inputs) or (len(times_ms) < runs and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        segmenter.predict(**inputs[len(times_ms) % len(inputs)])
        times_ms.append(1000 * (time.perf_counter() - start))
    p50, p95 = (round(float(ms), 3) for ms in np.percentile(times_ms, (50, 95)))
    return Latency(engine=segmenter.engine.name, images=len(inputs), runs=len(times_ms), p50_ms=p50, p95_ms=p95)


class _PeakMemory:
    """The peak memory since this object was made. Linux resets a process's peak if 5 is written to /proc/self/clear_refs."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.on_gpu = str(getattr(segmenter.engine, "device", "cpu")).startswith("cuda")
        self.known = True
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _RESET_PEAK.write_text("5")
        except OSError:  # not Linux, or not allowed: the peak would be that of the whole life of the process
            self.known = False

    def mib(self) -> int | None:
        """Return the peak in MiB; None if it is not known."""
        if self.on_gpu:
            import torch

            return torch.cuda.max_memory_allocated() >> 20
        if not self.known:
            return None
        line = next((row for row in _PROCESS_STATUS.read_text().splitlines() if row.startswith("VmHWM:")), None)
        return None if line is None else int(line.split()[1]) >> 10

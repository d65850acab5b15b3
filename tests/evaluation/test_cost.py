"""The cost of predictions."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import Params
from segpipe.data.shards import ShardReader
from segpipe.evaluation.cost import measure_cost, time_predictions
from segpipe.evaluation.evaluate import CandidateFacts, collect_metrics
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scoring import score_images
from segpipe.inference.segmenter import Segmenter
from tests.worlds.evaluated_workspace import CLASSES, Reading, make_segmenter


class Slow(Reading):
    """An engine that takes time and memory for each prediction."""

    def __init__(self, ms: float, mib: int) -> None:
        super().__init__(0.0)
        self.ms, self.mib, self.calls = ms, mib, 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.calls += 1
        with mmap.mmap(-1, self.mib << 20) as memory:  # mapped, since an allocator may keep memory that is freed
            memory[:: mmap.PAGESIZE] = bytes(len(memory) // mmap.PAGESIZE)
            time.sleep(self.ms / 1000)
        return super().__call__(batch)


def test_predictions_are_timed_after_an_untimed_one_of_each_size(reader: ShardReader) -> None:
    engine = Slow(5, 1)
    cost = measure_cost(Segmenter(make_segmenter(0).spec, engine), reader)
    assert (cost.engine, cost.images, cost.runs, engine.calls) == ("reading", 8, 20, 21)
    assert 5 <= cost.p50_ms <= cost.p95_ms
    inputs = [{"image": reader[0].image}] * 3
    latency = time_predictions(Segmenter(make_segmenter(0).spec, engine), inputs, 32, seconds=0)
    assert (latency.images, latency.runs) == (3, 3), "each at least once"
    engine.calls = 0
    sizes = [{"image": reader[0].image[:rows]} for rows in (16, 24, 16)]
    assert time_predictions(Segmenter(make_segmenter(0).spec, engine), sizes, 32, seconds=0).runs == 3
    assert engine.calls == 3 + 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak memory can be reset on Linux only")
def test_memory_is_that_of_these_predictions_and_not_of_earlier_ones(reader: ShardReader) -> None:
    def peak_memory(mib: int) -> int:
        peak = measure_cost(Segmenter(make_segmenter(0).spec, Slow(0, mib)), reader, seconds=0).peak_memory_mib
        assert peak is not None
        return peak

    small, large, again = peak_memory(1), peak_memory(100), peak_memory(1)
    assert 80 < large - small < 120
    assert again < large - 60


def test_the_cost_is_a_section_of_the_metrics(reader: ShardReader, params: Params) -> None:
    segmenter = make_segmenter(0.1)
    scores = Scores.collect("unet", CLASSES.names, {}, score_images(segmenter, reader, "unet"))
    cost = measure_cost(segmenter, reader, seconds=0)
    without_cost = collect_metrics(scores, params.evaluate, 0.8)
    metrics = collect_metrics(scores, params.evaluate, 0.8, CandidateFacts(cost=cost))
    assert metrics == without_cost.model_copy(update={"cost": cost})
    assert metrics.cost is not None and metrics.cost.engine == "reading"

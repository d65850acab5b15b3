"""What predictions cost."""

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
    """An engine that takes its time, and memory while it does."""

    def __init__(self, ms: float, mib: int) -> None:
        super().__init__(0.0)
        self.ms, self.mib, self.asked = ms, mib, 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.asked += 1
        with mmap.mmap(-1, self.mib << 20) as held:  # the system's own: an allocator may keep what it was given back
            held[:: mmap.PAGESIZE] = bytes(len(held) // mmap.PAGESIZE)
            time.sleep(self.ms / 1000)
        return super().__call__(batch)


def test_answers_are_timed_after_one_to_each_that_does_not_count(reader: ShardReader) -> None:
    engine = Slow(5, 1)
    found = measure_cost(Segmenter(make_segmenter(0).spec, engine), reader)
    assert (found.engine, found.images, found.runs, engine.asked) == ("reading", 8, 32, 40)
    assert 5 <= found.p50_ms <= found.p95_ms
    given = [{"image": reader[0].image}] * 3
    timed = time_predictions(Segmenter(make_segmenter(0).spec, engine), given, 32, seconds=0)
    assert (timed.images, timed.runs) == (3, 3), "each at the least once"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark is reset on Linux alone")
def test_memory_is_that_of_these_answers_and_not_of_what_went_before(reader: ShardReader) -> None:
    def most(mib: int) -> int:
        found = measure_cost(Segmenter(make_segmenter(0).spec, Slow(0, mib)), reader, seconds=0).peak_memory_mib
        assert found is not None
        return found

    small, large, again = most(1), most(300), most(1)
    assert 250 < large - small < 350
    assert again < large - 200


def test_metrics_json_tells_the_cost_beside_what_is_the_same_every_time(reader: ShardReader, params: Params) -> None:
    segmenter = make_segmenter(0.1)
    scores = Scores.collect("unet", CLASSES.names, {}, score_images(segmenter, reader, "unet"))
    cost = measure_cost(segmenter, reader, seconds=0)
    plain = collect_metrics(scores, "test", params.evaluate, 0.8)
    told = collect_metrics(scores, "test", params.evaluate, 0.8, CandidateFacts(cost=cost))
    assert told == plain | {"cost": cost.model_dump(exclude_none=True)} and told["cost"]["engine"] == "reading"

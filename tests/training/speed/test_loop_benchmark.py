"""The benchmark of the training loop: workers that prepare batches, and several processes that train."""

import os
from types import SimpleNamespace

import pytest

from segpipe.config import Params
from segpipe.errors import SegpipeError
from segpipe.models.custom import FactoryConfig
from segpipe.training.planning.execution import count_steps
from segpipe.training.planning.planner import plan_on
from segpipe.training.speed.loop_benchmark import LoopBenchmark, choose_workers, exchange_ms, with_exchange
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draw, fingerprint_of, make_plan

NETWORK = {"family": "custom", "factory": "tests.worlds.custom_networks:build"}


def small_plan(**changes):
    options = FactoryConfig(factory=changes.pop("factory", NETWORK["factory"])).model_dump()
    plan = make_plan(family="custom", patch=32, batch=3, augment="off")
    execution = plan.execution.model_copy(update={"devices": 2})
    return plan.model_copy(update={"options": options, "execution": execution})


def test_the_exchange_is_a_part_of_the_step():
    execution = small_plan().execution.model_copy(
        update={"ms_per_step": 7.0, "step_ms": {"forward": 3.0, "backward": 4.0}}
    )
    result = with_exchange(execution, 1.5)
    assert result.ms_per_step == 8.5 == sum(result.step_ms.values()) and result.step_ms["exchange"] == 1.5


class Crops:
    """Samples that take `ms` of CPU time each, by a fake clock."""

    def __init__(self, monkeypatch, ms):
        self.clock, self.ms = 0.0, ms
        monkeypatch.setattr("segpipe.training.telemetry.bottleneck.time.process_time", lambda: self.clock)

    def __getitem__(self, position):
        self.clock += self.ms / 1000


@pytest.mark.parametrize(
    ("sample_ms", "times", "order"),
    [
        (5.0, {4: 100.0, 1: 80.0, 0: 90.0}, [1, 4, 0]),
        (5.0, {4: 100.0, 1: 95.0, 0: 120.0}, [4, 1, 0]),  # not clearly faster
        (5.0, {4: 100.0, 1: 101.0, 0: 90.0}, [0, 4, 1]),
        (1.0, {4: 100.0, 1: 80.0, 0: 90.0}, [4]),  # three samples are 3 % of a step
    ],
)
def test_the_number_of_workers_is_the_one_with_the_fastest_loop(monkeypatch, sample_ms, times, order):
    benchmarks = []
    monkeypatch.setattr(LoopBenchmark, "time", lambda self, *_: benchmarks.append(self) or times[self.workers])
    stepper = SimpleNamespace(recipe=make_plan(batch=6).recipe)
    loop = LoopBenchmark(4, 3, 2, 4.0)  # two processes share the batch, so that three samples belong to this one
    ms_by_count = choose_workers([4, 1, 0], loop, stepper, Crops(monkeypatch, sample_ms), 100.0)
    assert list(ms_by_count) == order and all(ms_by_count[count] == times[count] for count in order)
    assert sum(each.seconds for each in benchmarks) == pytest.approx(4.0), "they share the time"


@pytest.mark.parametrize(("preset", "tried"), [({}, {0, 1}), ({"workers": 0}, {0}), ({"workers": 2}, {2})])
def test_a_plan_uses_the_fastest_number_of_workers_unless_it_is_set(monkeypatch, preset, tried):
    times = {0: 40.0, 1: 60.0, 2: 50.0}
    timed = []
    monkeypatch.setattr(LoopBenchmark, "time", lambda self, *_: timed.append(self.workers) or times[self.workers])
    monkeypatch.setattr("segpipe.training.speed.loop_benchmark.cpu_ms", lambda *_: 1e6)
    monkeypatch.setattr("segpipe.training.speed.step_speed.worker_counts", lambda *_: [1, 0])
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "20 steps", "patch": 32, "batch": 2, "precision": "fp32", "channels_last": False} | preset
    params = Params.model_validate({"train": settings, "candidates": {"net": NETWORK}})
    plan = plan_on("net", params, fingerprint_of(train), train, val)
    assert set(timed) == tried and plan.execution.workers == min(tried, key=lambda count: times[count])
    assert plan.execution.ms_per_step == times[plan.execution.workers]
    reason = plan.reasons["workers"]
    assert (
        reason.endswith("as set")
        if preset
        else reason == "the training process prepares the batches: 40 ms per step; with 1 60"
    )


def test_gpus_that_this_machine_does_not_have_are_not_timed(train_reader):
    plan = small_plan()
    cuda = plan.execution.machine.model_copy(update={"device": "cuda"})
    elsewhere = plan.execution.model_copy(update={"machine": cuda, "devices": 1000})
    assert (
        exchange_ms(plan.model_copy(update={"execution": elsewhere}), train_reader, LoopBenchmark(0, 3, 1000, 1.0), 5.0)
        == 0
    )


@pytest.mark.slow
def test_a_plan_for_two_processes_runs_both(monkeypatch):
    """A step that seems to take no time alone takes some in two processes, and the budget buys fewer steps."""
    monkeypatch.setattr("segpipe.training.speed.step_speed.step_parts", lambda *_: {"forward": 0.01, "backward": 0.01})
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "60m", "compile": False, "patch": 32, "batch": 3, "devices": 2, "accelerator": "cpu"}
    params = Params.model_validate({"train": settings, "candidates": {"net": NETWORK}})
    before = os.environ.get("OMP_NUM_THREADS")
    calls = []
    monkeypatch.setattr("segpipe.training.speed.loop_benchmark.LoopBenchmark.time", lambda *_: 0.01)
    monkeypatch.setattr(
        "segpipe.training.planning.execution.count_steps", lambda *a: calls.append(a) or count_steps(*a)
    )
    execution = plan_on("net", params, fingerprint_of(train), train, val).execution
    assert execution.step_ms["exchange"] > 0.1, "the milliseconds of both"
    assert execution.ms_per_step == pytest.approx(0.01 + execution.step_ms["exchange"], abs=0.06)
    assert calls[0][4] == pytest.approx(execution.ms_per_step, abs=0.1), "the number of steps follows from it"
    assert os.environ.get("OMP_NUM_THREADS") == before


@pytest.mark.slow
def test_a_process_that_fails_ends_planning_with_its_message(train_reader):
    with pytest.raises(
        SegpipeError,
        match=r"train.devices: .*cannot run at the same time: .*does not return a network.*Fix: set it to 1",
    ):
        exchange_ms(
            small_plan(factory="tests.worlds.custom_networks:no_network"),
            train_reader,
            LoopBenchmark(0, 3, 2, 0.1),
            0.0,
        )

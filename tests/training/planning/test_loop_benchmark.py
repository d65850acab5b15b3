"""The step of several processes, timed by running them."""

import os
from types import SimpleNamespace

import pytest

from segpipe.config import Params
from segpipe.errors import SegpipeError
from segpipe.models.custom import FactoryConfig
from segpipe.training.planning.execution import count_steps
from segpipe.training.planning.loop_benchmark import LoopBenchmark, choose_workers, exchange_ms, with_exchange
from segpipe.training.planning.planner import plan_on
from tests.worlds.tiny_training import MemoryReader, draw, fingerprint_of, make_plan

NETWORK = {"family": "custom", "factory": "tests.worlds.family_settings:build"}


def small_plan(**changes):
    options = FactoryConfig(factory=changes.pop("factory", NETWORK["factory"])).model_dump()
    plan = make_plan(family="custom", patch=32, batch=3, augment="off")
    execution = plan.execution.model_copy(update={"devices": 2})
    return plan.model_copy(update={"options": options, "execution": execution})


def test_the_exchange_is_a_part_of_the_step():
    execution = small_plan().execution.model_copy(
        update={"ms_per_step": 7.0, "step_ms": {"forward": 3.0, "backward": 4.0}}
    )
    found = with_exchange(execution, 1.5)
    assert found.ms_per_step == 8.5 == sum(found.step_ms.values()) and found.step_ms["exchange"] == 1.5


class Crops:
    """Samples that take a processor `ms` each, by a clock of its own."""

    def __init__(self, monkeypatch, ms):
        self.clock, self.ms = 0.0, ms
        monkeypatch.setattr("segpipe.training.telemetry.bottleneck.time.process_time", lambda: self.clock)

    def __getitem__(self, position):
        self.clock += self.ms / 1000


@pytest.mark.parametrize(
    ("sample_ms", "times", "order"),
    [
        (5.0, {4: 100.0, 1: 80.0, 0: 90.0}, [1, 4, 0]),
        (5.0, {4: 100.0, 1: 95.0, 0: 120.0}, [4, 1, 0]),  # as fast as the clock can tell
        (5.0, {4: 100.0, 1: 101.0, 0: 90.0}, [0, 4, 1]),
        (1.0, {4: 100.0, 1: 80.0, 0: 90.0}, [4]),  # three samples are 3 % of a step
    ],
)
def test_so_many_processes_prepare_batches_as_the_loop_is_fastest_with(monkeypatch, sample_ms, times, order):
    seen = []
    monkeypatch.setattr(LoopBenchmark, "time", lambda self, *_: seen.append(self) or times[self.workers])
    stepper = SimpleNamespace(recipe=make_plan(batch=6).recipe)
    loop = LoopBenchmark(4, 3, 2, 4.0)  # of two processes, so that three samples are this one's
    found = choose_workers([4, 1, 0], loop, stepper, Crops(monkeypatch, sample_ms), 100.0)
    assert list(found) == order and all(found[count] == times[count] for count in order)
    assert sum(each.seconds for each in seen) == pytest.approx(4.0), "they share the time"


@pytest.mark.parametrize(("wanted", "tried"), [({}, {0, 1}), ({"workers": 0}, {0}), ({"workers": 2}, {2})])
def test_a_plan_follows_the_race_of_workers_unless_they_are_set(monkeypatch, wanted, tried):
    times = {0: 40.0, 1: 60.0, 2: 50.0}
    seen = []
    monkeypatch.setattr(LoopBenchmark, "time", lambda self, *_: seen.append(self.workers) or times[self.workers])
    monkeypatch.setattr("segpipe.training.planning.loop_benchmark.cpu_ms", lambda *_: 1e6)
    monkeypatch.setattr("segpipe.training.planning.execution.worker_counts", lambda *_: [1, 0])
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "20 steps", "patch": 32, "batch": 2, "precision": "fp32", "channels_last": False} | wanted
    params = Params.model_validate({"train": settings, "candidates": {"net": NETWORK}})
    plan = plan_on("net", params, fingerprint_of(train), train, val)
    assert set(seen) == tried and plan.execution.workers == min(tried, key=lambda count: times[count])
    assert plan.execution.ms_per_step == times[plan.execution.workers]
    said = plan.reasons["workers"]
    assert (
        said.endswith("as set")
        if wanted
        else said == "the training itself prepares the batches: 40 ms a step; with 1 60"
    )


def test_gpus_that_are_not_here_are_not_timed(train_reader):
    plan = small_plan()
    cuda = plan.execution.machine.model_copy(update={"device": "cuda"})
    elsewhere = plan.execution.model_copy(update={"machine": cuda, "devices": 1000})
    assert (
        exchange_ms(plan.model_copy(update={"execution": elsewhere}), train_reader, LoopBenchmark(0, 3, 1000, 1.0), 5.0)
        == 0
    )


@pytest.mark.slow
def test_a_plan_for_two_processes_runs_both(monkeypatch):
    """A step that is timed as if it took no time alone takes some in two processes, and the budget buys so many fewer."""
    monkeypatch.setattr(
        "segpipe.training.planning.execution.step_parts", lambda *_: {"forward": 0.01, "backward": 0.01}
    )
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "60m", "compile": False, "patch": 32, "batch": 3, "devices": 2, "accelerator": "cpu"}
    wanted = Params.model_validate({"train": settings, "candidates": {"net": NETWORK}})
    before = os.environ.get("OMP_NUM_THREADS")
    seen = []
    monkeypatch.setattr("segpipe.training.planning.execution.Loop.time", lambda *_: 0.01)
    monkeypatch.setattr("segpipe.training.planning.execution.count_steps", lambda *a: seen.append(a) or count_steps(*a))
    execution = plan_on("net", wanted, fingerprint_of(train), train, val).execution
    assert execution.step_ms["exchange"] > 0.1, "milliseconds of both together"
    assert execution.ms_per_step == pytest.approx(0.01 + execution.step_ms["exchange"], abs=0.06)
    assert seen[0][4] == pytest.approx(execution.ms_per_step, abs=0.1), "what steps are counted by"
    assert os.environ.get("OMP_NUM_THREADS") == before


@pytest.mark.slow
def test_a_process_that_fails_ends_the_planning_with_its_words(train_reader):
    with pytest.raises(
        SegpipeError, match=r"train.devices: .*can't run side by side: .*makes no network.*Fix: set it to 1"
    ):
        exchange_ms(
            small_plan(factory="tests.worlds.family_settings:no_network"),
            train_reader,
            LoopBenchmark(0, 3, 2, 0.1),
            0.0,
        )

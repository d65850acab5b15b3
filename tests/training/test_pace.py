"""The step of several processes, timed by running them."""

import os

import pytest

from segpipe.config import Params
from segpipe.errors import SegpipeError
from segpipe.models.custom import FactoryConfig
from segpipe.training.execution import count_steps
from segpipe.training.pace import Loop, exchange_ms, with_exchange
from segpipe.training.planner import plan_on

from .conftest import MemoryReader, draw, fingerprint_of, make_plan

NETWORK = {"family": "custom", "factory": "tests.models.tiny:build"}


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


def test_gpus_that_are_not_here_are_not_timed(train_reader):
    plan = small_plan()
    cuda = plan.execution.machine.model_copy(update={"device": "cuda"})
    elsewhere = plan.execution.model_copy(update={"machine": cuda, "devices": 1000})
    assert exchange_ms(plan.model_copy(update={"execution": elsewhere}), train_reader, Loop(0, 3, 1000, 1.0), 5.0) == 0


@pytest.mark.slow
def test_a_plan_for_two_processes_runs_both(monkeypatch):
    """A step that is timed as if it took no time alone takes some in two processes, and the budget buys so many fewer."""
    monkeypatch.setattr("segpipe.training.execution.step_parts", lambda *_: {"forward": 0.01, "backward": 0.01})
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "60m", "compile": False, "patch": 32, "batch": 3, "devices": 2, "accelerator": "cpu"}
    wanted = Params.model_validate({"train": settings, "candidates": {"net": NETWORK}})
    before = os.environ.get("OMP_NUM_THREADS")
    seen = []
    monkeypatch.setattr("segpipe.training.execution.Loop.time", lambda *_: 0.01)
    monkeypatch.setattr("segpipe.training.execution.count_steps", lambda *a: seen.append(a) or count_steps(*a))
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
        exchange_ms(small_plan(factory="tests.models.tiny:no_network"), train_reader, Loop(0, 3, 2, 0.1), 0.0)

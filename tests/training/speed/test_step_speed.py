"""Speeds that are known are not measured again, and a short budget compares no settings. Benchmarks are counted, not timed."""

from __future__ import annotations

import pytest
import torch

from segpipe.config import Params
from segpipe.training.plan import StepSetting
from segpipe.training.planning import resolution_budget
from segpipe.training.planning.budget import FinishingTime
from segpipe.training.planning.planner import plan_on
from segpipe.training.speed import step_speed
from segpipe.training.speed.loop_benchmark import LoopBenchmark, LoopTimes
from segpipe.training.speed.precision_benchmark import CHOSEN, NOT_TRIED, PrecisionBenchmark
from segpipe.training.speed.speed_cache import VARIABLE, KnownSpeed, recall
from segpipe.training.step import Stepper
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draw, fingerprint_of
from tests.worlds.trainings import register

TRAIN, VAL = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(100 + i) for i in range(2)])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "speeds"))
    return tmp_path / "speeds"


@pytest.fixture
def calls(monkeypatch):
    """The benchmarks that ran, in order: "price", "settings", and the loop by its number of workers."""
    calls = []
    price, settings, loop = resolution_budget._step_ms, PrecisionBenchmark.run, LoopBenchmark.run

    def spied(name, real):
        def run(*arguments):
            calls.append(name or f"loop {arguments[0].workers}")
            return real(*arguments)

        return run

    monkeypatch.setattr(resolution_budget, "_step_ms", spied("price", price))
    monkeypatch.setattr(PrecisionBenchmark, "run", spied("settings", settings))
    monkeypatch.setattr(LoopBenchmark, "run", spied(None, loop))
    monkeypatch.setattr(step_speed, "worker_counts", lambda *_: [0])
    monkeypatch.setattr(PrecisionBenchmark, "_time_limit_s", lambda *_: float("inf"))  # a busy machine compares as much
    return calls


def plan(budget, reuse_speeds=True, name="net", **train):
    register()
    settings = {"budget": budget, "patch": 32, "batch": 2} | train
    params = Params.model_validate({"train": settings, "candidates": {name: {"family": "tiny"}}})
    return plan_on(name, params, fingerprint_of(TRAIN), TRAIN, VAL, reuse_speeds)


def test_a_short_budget_takes_the_most_likely_setting(calls, monkeypatch):
    monkeypatch.setattr("segpipe.training.speed.precision_benchmark.has_bf16", lambda _: False)
    planned = plan("60s")
    assert calls == ["price", "loop 0"]
    assert planned.execution.setting == StepSetting(precision="fp32", channels_last=True)
    assert [timing.verdict for timing in planned.execution.timings] == [CHOSEN, NOT_TRIED]
    assert "the budget leaves no time to compare" in planned.reasons["execution"]
    assert set(planned.execution.step_ms) == {"batches", "steps"}
    assert sum(planned.execution.step_ms.values()) == pytest.approx(planned.execution.ms_per_step, abs=0.2)


def test_a_longer_budget_compares(calls):
    assert plan("5m").reasons["execution"].count("as fast as the slowest setting tried") == 1
    assert calls == ["price", "settings", "loop 0"]


def test_what_is_known_is_checked_by_a_few_steps(calls, cache, monkeypatch):
    first = plan("60s")
    calls.clear()
    steps, step = [], Stepper.step
    monkeypatch.setattr(Stepper, "step", lambda *arguments: steps.append(1) or step(*arguments))
    again = plan("90s", name="other", learning_rate=1e-3, loss={"cross_entropy": 1.0, "dice": 0.1})
    assert calls == ["loop 0"] and len(steps) == 3, "one that prepares kernels, and two that are timed"
    assert again.execution.setting == first.execution.setting
    assert f"known from an earlier plan on this machine ({cache}" in again.reasons["execution"]
    (path,) = (path for path in cache.iterdir() if path.name.startswith("knownspeed"))
    assert str(path) in again.reasons["execution"]


def test_a_budget_of_steps_needs_no_speed(calls, monkeypatch):
    plan("20 steps")
    assert calls == ["settings", "loop 0"], "steps are not priced"
    calls.clear()
    monkeypatch.setattr("segpipe.training.planning.execution.peak_memory_mib", lambda _: 1)
    again = plan("30 steps")
    assert again.recipe.steps == 30 and calls == []
    assert again.execution.peak_memory_mib > 50, "of the process that took the steps"


def test_the_comparison_of_a_longer_budget_serves_a_short_one_and_not_the_other_way_round(calls):
    plan("60s")
    calls.clear()
    compared = plan("10m")
    assert calls == ["settings", "loop 0"]
    calls.clear()
    assert plan("60s").execution.timings == compared.execution.timings and calls == ["loop 0"]
    assert plan("20 steps").execution.timings == compared.execution.timings and calls == ["loop 0"]


def test_a_budget_that_may_repay_compiling_compares_again(calls, monkeypatch):
    compiled = []
    monkeypatch.setattr(PrecisionBenchmark, "_time_compiled", lambda *_: compiled.append(1) or [])
    plan("10m")
    calls.clear()
    plan("2h")
    assert calls == ["settings", "loop 0"] and len(compiled) == 2
    calls.clear()
    plan("3h")
    assert calls == ["loop 0"], "the same comparison"
    plan("10m")
    assert calls == ["loop 0"] * 2, "which has not replaced the one without compiling"


def test_a_refresh_measures_again_for_all_later_plans(calls, monkeypatch):
    plan("60s")
    calls.clear()
    monkeypatch.setattr(LoopBenchmark, "run", lambda *_: LoopTimes(40.0, 10.0, True))
    assert "known" not in plan("60s", reuse_speeds=False).reasons["execution"]
    assert calls == ["price"]
    assert plan("60s").execution.ms_per_step == 40.0 and calls == ["price"]


@pytest.mark.parametrize(("now", "used"), [(120.0, 100.0), (130.0, 130.0), (80.0, 100.0), (70.0, 70.0)])
def test_a_busier_machine_makes_known_steps_longer(calls, monkeypatch, now, used):
    times = iter([100.0, 50.0, now])
    monkeypatch.setattr(LoopBenchmark, "run", lambda *_: LoopTimes(next(times), 20.0, True))
    register()
    plan("60s", progressive="crops", patch=64)
    execution = plan("60s", progressive="crops", patch=64).execution
    assert execution.ms_per_step == used
    assert execution.step_ms == {"batches": pytest.approx(0.2 * used), "steps": pytest.approx(0.8 * used)}


def test_validations_use_the_images_that_a_short_budget_pays_for(calls, monkeypatch):
    many = MemoryReader([draw(100 + i) for i in range(20)])
    monkeypatch.setattr("tests.training.speed.test_step_speed.VAL", many)
    monkeypatch.setattr("segpipe.training.planning.execution._image_ms", lambda *_: 200.0)
    monkeypatch.setattr("segpipe.training.planning.execution.finishing_time", lambda *_: FinishingTime(200.0))
    planned = plan("60s")
    assert planned.recipe.val_images == 12, "4 % of the budget are 2.4 s"
    assert planned.execution.ms_per_validation == 12 * 200
    assert planned.reasons["validation images"].startswith("12 of 20, evenly spread")
    for budget in ("2m", "100 steps"):
        planned = plan(budget)
        assert planned.recipe.val_images is None and "validation images" not in planned.reasons
    assert plan("60s", cleaning="none", tta="none").recipe.val_images == 12, "an untouched model is validated, too"


def test_cheaper_steps_are_known_too(calls, monkeypatch):
    times = iter([100.0, 50.0, 200.0])
    monkeypatch.setattr(LoopBenchmark, "run", lambda *_: LoopTimes(next(times), 20.0, True))
    full = plan("120s", progressive="crops", patch=64).recipe.steps
    slow = plan("120s", progressive="crops", patch=64).recipe.steps
    assert slow == pytest.approx(full / 2, rel=0.05), "both kinds of steps take twice as long"


def test_a_setting_whose_loss_is_not_finite_is_compared_with_others(calls, monkeypatch):
    """The most likely setting fails; the comparison refuses it too."""
    first = []
    step = Stepper.step

    def failing(self, *arguments):
        loss = step(self, *arguments)
        if self.setting.channels_last:
            first.append(self.setting)
            return loss * torch.nan
        return loss

    monkeypatch.setattr(Stepper, "step", failing)
    planned = plan("60s", precision="fp32")
    assert first and not planned.execution.setting.channels_last
    assert calls[:2] == ["price", "loop 0"] and "settings" in calls


def test_a_truncated_comparison_is_no_comparison(cache, monkeypatch):
    """A longer budget may find the time for all settings."""
    monkeypatch.setattr(PrecisionBenchmark, "_time_limit_s", lambda *_: 0.0)
    planned = plan("6m", precision="fp32")
    assert NOT_TRIED in [timing.verdict for timing in planned.execution.timings]
    (path,) = cache.glob("knownspeed-*.json")
    entry = KnownSpeed.model_validate_json(path.read_text())
    assert entry.key["comparison"] == "none" and recall(entry.key, KnownSpeed) == entry

"""The arithmetic of budgets, with fake clocks: a wall-clock budget pays for planning, start, compiling, validations and choices."""

import itertools
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segpipe.config import Params
from segpipe.errors import ConfigError
from segpipe.samples import IGNORE
from segpipe.training.finishing.instance_search import MAX_IMAGES
from segpipe.training.plan import StepSetting
from segpipe.training.planning import budget, execution
from segpipe.training.planning.budget import (
    COMMAND_S,
    FIRST_BATCHES_S,
    MIN_STEPS,
    FinishingTime,
    count_steps,
    finishing_time,
    mean_step_ms,
)
from segpipe.training.planning.planner import plan_on
from segpipe.training.scoring import segmenter_spec
from segpipe.training.speed.precision_benchmark import CHOSEN, PrecisionBenchmark
from segpipe.training.step import Stepper
from segpipe.training.tasks import samples_of
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, candidate_params, draw, fingerprint_of, make_plan
from tests.worlds.trainings import register, tiny_plan


@given(
    st.floats(30, 86_400),
    st.floats(1, 5000),
    st.floats(1, 600_000),
    st.integers(1, 2000),
    st.integers(1, 32),
    st.floats(0, 600),
)
def test_a_budget_of_seconds_is_kept(seconds, ms_step, ms_val, n_train, batch, overhead_s):
    try:
        steps, validations = count_steps("seconds", seconds, n_train, batch, ms_step, ms_val, overhead_s)
    except ConfigError:
        assert overhead_s + (MIN_STEPS * ms_step + ms_val) / 1000 > 0.98 * seconds
        return
    assert steps >= MIN_STEPS
    assert 1 <= validations <= min(10, steps)
    took = overhead_s + (steps * ms_step + validations * ms_val) / 1000
    assert 0.985 * seconds - 2 * ms_step / 1000 <= took <= seconds
    assert validations == 1 or validations * ms_val / 1000 <= (0.1 if seconds >= 300 else 0.05) * seconds


def test_a_budget_that_buys_too_few_steps_is_refused_with_the_least_that_would_do():
    with pytest.raises(ConfigError, match=r"found 40 s, which is 1 steps of 20000 ms, .* expected at least 204 s here"):
        count_steps("seconds", 40, 100, 8, 20_000, 2_000)


def test_overhead_is_charged_to_a_budget_of_time():
    assert count_steps("seconds", 140, 100, 8, 50, 900, overhead_s=40) == count_steps("seconds", 100, 100, 8, 50, 900)
    assert count_steps("steps", 140, 100, 8, 50, 900, overhead_s=40) == count_steps("steps", 140, 100, 8, 50, 900)
    with pytest.raises(ConfigError, match=r"found 60 s, which is 0 steps .* expected at least 67 s here"):
        count_steps("seconds", 60, 100, 8, 500, 1000, overhead_s=60)


def test_the_number_of_validations_that_is_set_is_kept_whatever_they_take():
    assert count_steps("seconds", 100, 100, 8, 50, 2000)[1] < 10 and count_steps("steps", 60, 100, 8, 50, 2000)[1] == 10
    steps, validations = count_steps("seconds", 100, 100, 8, 50, 2000, validations=25)
    assert validations == 25 and (steps * 50 * 1.01 + 25 * 2000) / 1000 == pytest.approx(100, abs=0.1)
    assert count_steps("steps", 60, 100, 8, 50, 2000, validations=25) == (60, 25)
    assert count_steps("steps", 3, 100, 8, 50, 2000, validations=25) == (3, 3)
    with pytest.raises(ConfigError, match=r"with 2\.0 s for each of 60 validations, expected at least 126 s"):
        count_steps("seconds", 100, 100, 8, 500, 2000, validations=60)


def test_the_last_validation_and_the_start_have_their_own_time():
    steps, validations = count_steps("seconds", 100, 100, 8, 50, 1000, overhead_s=4.0, ms_last=2500)
    assert validations == 1 + 2, "the last one, and two in the rest of 5 %"
    assert 4.0 + (2 * 1000 + 2500 + steps * 50 * 1.01) / 1000 == pytest.approx(100, abs=0.1)
    with pytest.raises(ConfigError, match=r"with 2\.5 s for a validation, expected at least 12 s"):
        count_steps("seconds", 5, 100, 8, 500, 1000, overhead_s=4.0, ms_last=2500)


def test_budgets_of_steps_and_epochs():
    assert count_steps("steps", 500, 100, 8, 1.0, 1.0)[0] == 500
    assert count_steps("epochs", 40, 123, 8, 1.0, 1.0)[0] == 615


stretch = st.tuples(st.integers(1, 199), st.floats(0.1, 1.2))


@given(st.floats(1, 1000), st.lists(stretch, max_size=3))
def test_cheaper_steps_are_counted_with_the_time_that_they_take(ms, cheaper):
    """Compared with the sum over 200 steps."""
    each = [ms * math.prod(factor for until, factor in cheaper if step < until) for step in range(200)]
    mean = mean_step_ms(ms, [(until / 200, factor * ms) for until, factor in cheaper])
    assert mean == pytest.approx(sum(each) / 200)


@pytest.fixture
def ticking(monkeypatch):
    """A fake clock: each reading takes a second, and tests advance it."""
    clock = SimpleNamespace(now=1000.0, readings=[])

    def read():
        clock.now += 1.0
        clock.readings.append(clock.now)
        return clock.now

    monkeypatch.setattr(time, "perf_counter", read)
    return clock


def test_planning_compiling_and_finishing_are_charged(ticking, monkeypatch):
    """Two kinds of cheaper first steps are compiled as well."""
    calls = []

    def counted(*arguments):
        calls.append((arguments, ticking.now))
        return 3, 1

    monkeypatch.setattr(execution, "count_steps", counted)
    monkeypatch.setattr(execution, "finishing_time", lambda *_: FinishingTime(500.0, 0.0, 7000.0))
    monkeypatch.setattr(execution, "has_choices", lambda *_: True)
    monkeypatch.setattr(PrecisionBenchmark, "compile_seconds", lambda *_: 20.0)
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {
        "budget": "10m",
        "patch": 64,
        "batch": 2,
        "freeze_encoder": 0.4,
        "progressive": "crops",
        "precision": "fp32",
        "channels_last": False,
    }
    started, imports_s = ticking.now, 30.0
    ticking.now += imports_s
    plan = plan_on("net", candidate_params(settings), fingerprint_of(train), train, val, started=started)
    (((kind, amount, n_train, batch, ms_mean, _, overhead_s, *rest), now),) = calls
    members, validations, ms_last = rest
    assert (kind, amount, n_train, batch) == ("seconds", 600.0, 8, 2)
    assert (members, validations, ms_last) == (1, None, 500.0)
    start_s = imports_s + 2  # the network and its first stepper take a reading each
    charged_s = 2 * COMMAND_S + FIRST_BATCHES_S + start_s + now - started + 7.0 + 3 * 20.0
    assert overhead_s == pytest.approx(charged_s, abs=2.1), "a reading takes a second"
    assert ms_mean == pytest.approx(plan.execution.ms_per_step, rel=0.3), "each step takes a few readings of this clock"
    assert f"{overhead_s:.0f} s for planning" in plan.reasons["steps"]


def test_the_first_step_of_a_compiled_network_is_its_compilation(ticking, train_reader, monkeypatch):
    register()
    plan, slow = tiny_plan(), itertools.chain([30.0], itertools.repeat(0.0))

    def step(*_):
        ticking.now += next(slow)
        return torch.tensor(1.0)

    monkeypatch.setattr(Stepper, "step", step)
    settings = candidate_params({"budget": "1h", "compile": True, "precision": "fp32", "channels_last": False}).train
    benchmark = PrecisionBenchmark(plan, torch.nn.Conv2d(3, 3, 1), samples_of(train_reader, plan), "cpu", settings)
    benchmark.reference, benchmark.tolerance = 1.0, 0.02
    (timing,) = benchmark.run()
    assert benchmark.compile_seconds(timing.setting) == pytest.approx(31)
    assert timing.ms_per_step == pytest.approx(1000)
    assert benchmark.compile_seconds(StepSetting(precision="fp32", channels_last=True)) == 0


@pytest.mark.parametrize(("seconds", "winner"), [(20.0, True), (6.0, False)], ids=["in turns", "no time for that"])
def test_settings_of_similar_speed_are_timed_in_turns(ticking, train_reader, monkeypatch, seconds, winner):
    """Channels-last is faster, but the machine is busy when it is timed first."""
    register()
    plan, busy = tiny_plan(), iter([0.25] * 2)

    def step(self, *_):
        ticking.now += (0.3 if self.setting.channels_last else 0.5) + next(busy, 0.0)
        return torch.tensor(1.0)

    monkeypatch.setattr(Stepper, "step", step)
    settings = candidate_params({"budget": "10m", "compile": False, "precision": "fp32"}).train
    benchmark = PrecisionBenchmark(plan, torch.nn.Conv2d(3, 3, 1), samples_of(train_reader, plan), "cpu", settings)
    benchmark.reference, benchmark.tolerance = 1.0, 0.02
    limits = itertools.chain([9.0], itertools.repeat(seconds))  # for each setting at first, and then for turns
    monkeypatch.setattr(benchmark, "_time_limit_s", lambda _: next(limits))
    timings = benchmark.run()
    assert [t.setting.channels_last for t in timings if t.verdict == CHOSEN] == [winner]


def test_one_process_is_timed_with_its_share_of_the_batch_and_of_the_cores(monkeypatch):
    register()
    batch_sizes, threads, step = set(), [], Stepper.step

    def recorded(self, number, images, *rest):
        batch_sizes.add(len(images))
        return step(self, number, images, *rest)

    monkeypatch.setattr(Stepper, "step", recorded)
    monkeypatch.setattr(execution, "configure_process", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    two_processes = Params.model_validate(
        {
            "train": {"budget": "3 steps", "patch": 32, "batch": 5, "devices": 2},
            "candidates": {"net": {"family": "tiny"}},
        }
    )
    plan = plan_on("net", two_processes, fingerprint_of(train), train, val)
    assert batch_sizes == {3}, "of five images, the first of two processes has three"
    assert threads == [4, 8] and plan.execution.machine.threads == 8


def test_choices_after_the_last_step_are_timed_on_a_few_images(ticking, monkeypatch):
    val = MemoryReader([draw(i) for i in range(8)])
    plan = make_plan(cleaning="auto").model_copy(update={"postprocess": "watershed"})
    spec = segmenter_spec(plan, CLASSES)
    assert finishing_time(make_plan(cleaning="none"), spec, val, 1000) == FinishingTime(1000)

    def work(seconds, imports_s):
        def choose(truth, images, *_):
            ticking.now += seconds * len(images) + (imports_s if len(images) == 1 else 0.0)
            assert len(images) in (1, 2) and truth.spec is spec

        return choose

    monkeypatch.setattr(budget, "choose_cleaning", work(3.0, 0.5))
    monkeypatch.setattr(budget, "best_instance_settings", work(4.0, 20.0))
    choices_ms = (2 * (3.0 + 4.0) + 1.0) * 1000 / 2  # reading the clock takes a second
    imports_ms = (7.0 + 20.5 + 1.0) * 1000 - choices_ms
    assert finishing_time(plan, spec, val, 1000) == FinishingTime(1000, 0, choices_ms, imports_ms)
    shared = finishing_time(plan, spec, val, 1000, shares_outputs=False)
    assert shared == FinishingTime(1000, 1000, choices_ms, imports_ms)
    flips = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"tta": "flips"})})
    assert finishing_time(flips, spec, val, 1000).ms_outputs == 3000, "one of four is remembered"


share_ms = st.floats(0, 3000)


@given(st.floats(0.1, 1000), share_ms, share_ms, share_ms, st.floats(60, 3600), st.integers(1, 500))
def test_the_finished_model_uses_the_images_that_its_share_of_the_budget_pays_for(
    last, outputs, choices, imports, seconds, n
):
    time_each = FinishingTime(last, outputs, choices, imports)
    images = time_each.affordable_images(seconds, n)
    assert min(n, 8) <= images <= n

    def spent(count):
        return (last * count / 1000 + time_each.seconds(count)) / seconds

    assert images == min(n, 8) or spent(images) <= 0.04 + 1e-9
    assert images == n or spent(images + 1) > 0.04 - 1e-9
    assert time_each.seconds(200) == pytest.approx((imports + outputs * 200 + choices * MAX_IMAGES) / 1000)


@pytest.mark.parametrize("method", ["components", "watershed", "distance", "detections"])
def test_choices_can_be_timed_on_the_truth(method):
    samples = [draw(i) for i in range(8)]
    samples = [type(s)(s.key, s.image, s.labels, (s.labels % IGNORE).astype(np.uint16)) for s in samples]
    plan = make_plan(cleaning="auto").model_copy(update={"postprocess": method})
    assert 0 < finishing_time(plan, segmenter_spec(plan, CLASSES), MemoryReader(samples), 0.0).ms_choices < 60_000
    truth = budget._TruthSegmenter(segmenter_spec(plan, CLASSES), method == "distance")
    prediction = truth.segment(samples[0])
    counted = samples[0].labels != IGNORE
    assert np.array_equal(prediction.class_ids[counted], samples[0].labels[counted])
    assert np.array_equal(prediction.probabilities.argmax(0), prediction.class_ids)

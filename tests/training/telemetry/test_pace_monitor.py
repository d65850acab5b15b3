import pytest

from segpipe.training.telemetry import pace_monitor
from segpipe.training.telemetry.pace_monitor import PaceMonitor
from tests.worlds.trainings import tiny_plan

TIME_BUDGET = {"train.budget": "10m"}


def output_of(monkeypatch, capfd, seconds_per_validation, settings, validations=10):
    """The output for a training planned with 100 steps of 0.5 s and a validation of 1 s after every ten, with other times."""
    plan = tiny_plan(steps=100, val_every=10)
    execution = plan.execution.model_copy(update={"ms_per_step": 500.0, "ms_per_validation": 1000.0})
    monitor = PaceMonitor(plan.model_copy(update={"execution": execution, "settings": settings}))
    now = [99.0]
    monkeypatch.setattr(pace_monitor.time, "perf_counter", lambda: now[0])
    for number in range(1, validations + 1):
        now[0] += seconds_per_validation(number)
        monitor.check(10 * number)
    return capfd.readouterr().err


@pytest.mark.parametrize("settings", [TIME_BUDGET, {"family": "unet"}])
def test_a_training_that_will_end_late_is_reported_once(monkeypatch, capfd, settings):
    output = output_of(monkeypatch, capfd, lambda _: 7.5, settings)
    assert output.count("\n") == 1
    assert "25% longer than planned" in output and "about 15 s late" in output
    assert "segpipe plan tiny --refresh" in output


def test_a_training_within_its_plan_or_without_a_budget_of_time_reports_nothing(monkeypatch, capfd):
    assert output_of(monkeypatch, capfd, lambda _: 6.5, TIME_BUDGET) == "", "within a tenth"
    assert output_of(monkeypatch, capfd, lambda number: 60 if number == 1 else 6, TIME_BUDGET) == "", (
        "the first steps compile"
    )
    assert output_of(monkeypatch, capfd, lambda number: 60 if number == 10 else 6, TIME_BUDGET) == "", (
        "the training is over"
    )
    assert output_of(monkeypatch, capfd, lambda _: 60, {"train.budget": "100 steps"}) == ""
    assert output_of(monkeypatch, capfd, lambda _: 60, None) == ""


def test_a_training_that_slows_down_is_reported_once_its_total_is_late(monkeypatch, capfd):
    output = output_of(monkeypatch, capfd, lambda number: 6 if number < 5 else 9, TIME_BUDGET)
    assert output.count("\n") == 1 and "12% longer" in output, "(3 * 6 + 9) / (4 * 6)"

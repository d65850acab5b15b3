import pytest

from segpipe.training.telemetry import pace_monitor
from segpipe.training.telemetry.pace_monitor import PaceMonitor
from tests.worlds.trainings import tiny_plan

BY_TIME = {"train.budget": "10m"}


def told(monkeypatch, capfd, seconds_a_look, settings, looks=10):
    """What is said of a training of 100 steps of 0.5 s, with a look at val of 1 s after each ten, that takes otherwise."""
    plan = tiny_plan(steps=100, val_every=10)
    execution = plan.execution.model_copy(update={"ms_per_step": 500.0, "ms_per_validation": 1000.0})
    late = PaceMonitor(plan.model_copy(update={"execution": execution, "settings": settings}))
    now = [99.0]
    monkeypatch.setattr(pace_monitor.time, "perf_counter", lambda: now[0])
    for look in range(1, looks + 1):
        now[0] += seconds_a_look(look)
        late.look(10 * look)
    return capfd.readouterr().err


@pytest.mark.parametrize("settings", [BY_TIME, {"family": "unet"}])
def test_what_ends_late_is_said_once(monkeypatch, capfd, settings):
    said = told(monkeypatch, capfd, lambda _: 7.5, settings)
    assert said.count("\n") == 1
    assert "25% longer than planned" in said and "some 15 s late" in said and "segpipe plan tiny --refresh" in said


def test_what_keeps_to_its_plan_or_has_none_says_nothing(monkeypatch, capfd):
    assert told(monkeypatch, capfd, lambda _: 6.5, BY_TIME) == "", "within a tenth"
    assert told(monkeypatch, capfd, lambda look: 60 if look == 1 else 6, BY_TIME) == "", "the first steps compile"
    assert told(monkeypatch, capfd, lambda look: 60 if look == 10 else 6, BY_TIME) == "", (
        "there is nothing left to foretell"
    )
    assert told(monkeypatch, capfd, lambda _: 60, {"train.budget": "100 steps"}) == ""
    assert told(monkeypatch, capfd, lambda _: 60, None) == ""


def test_one_that_slows_down_later_is_told_when_its_whole_is_late(monkeypatch, capfd):
    said = told(monkeypatch, capfd, lambda look: 6 if look < 5 else 9, BY_TIME)
    assert said.count("\n") == 1 and "12% longer" in said, "(3 * 6 + 9) / (4 * 6)"

"""The choice of precision and memory format, with fake losses."""

import itertools

import pytest
import torch

from segpipe.training.plan import StepSetting, Timing
from segpipe.training.sampling.crops import Crops
from segpipe.training.speed import precision_benchmark
from segpipe.training.speed.precision_benchmark import (
    CHOSEN,
    LOSS_TOLERANCE,
    PrecisionBenchmark,
    candidate_settings,
    fastest,
)
from segpipe.training.step import Stepper
from segpipe.training.tasks import samples_of
from tests.worlds.detectors import detector_plan, discs
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import candidate_params, make_plan


def test_settings_that_are_set_are_not_timed():
    assert candidate_settings(candidate_params({"precision": "bf16", "channels_last": True}).train, "cpu") == [
        StepSetting(precision="bf16", channels_last=True)
    ]
    assert len(candidate_settings(candidate_params({"precision": "fp32"}).train, "cpu")) == 2


def timing(verdict, ms):
    return Timing(
        setting=StepSetting(precision="fp32", channels_last=False), ms_per_step=ms, loss_difference=0.0, verdict=verdict
    )


def test_the_fastest_that_agrees_wins():
    assert (
        fastest(
            [timing("agrees", 5.0), timing("agrees", 3.0), timing("refused: its loss differs from that of fp32", 1.0)]
        ).ms_per_step
        == 3.0
    )
    assert fastest([timing("refused", 1.0)]) is None


def test_a_setting_with_a_different_loss_is_refused(train_reader, monkeypatch):
    """The benchmark must notice a fast setting that computes something else."""
    plan = make_plan()
    network = torch.nn.Conv2d(3, 3, 1)
    step = Stepper.step

    def wrong_in_bf16(self, number, images, labels, seed):
        return step(self, number, images * (3 if self.setting.precision == "bf16" else 1), labels, seed)

    monkeypatch.setattr(Stepper, "step", wrong_in_bf16)
    monkeypatch.setattr(precision_benchmark, "has_bf16", lambda _: True)
    timings = PrecisionBenchmark(
        plan, network, Crops(train_reader, plan), "cpu", candidate_params({"budget": "1h", "compile": False}).train
    ).run()
    assert {t.setting.precision: t.verdict.split(":")[0] for t in timings if t.setting.channels_last}[
        "bf16"
    ] == "refused"
    assert next(t for t in timings if t.verdict == CHOSEN).setting.precision == "fp32"


def test_losses_of_a_detector_may_differ_as_much_as_between_draws_of_proposals(train_reader, monkeypatch):
    """They vary at random, by more than the tolerance for other networks."""
    drawn = itertools.cycle([1.0, 1.1, 0.9, 1.05, 0.95])
    monkeypatch.setattr(precision_benchmark, "objective_of", lambda *_: lambda *_: next(drawn))
    settings = candidate_params({"budget": "1h", "compile": False}).train
    plan = detector_plan(batch=2)
    benchmark = PrecisionBenchmark(
        plan, torch.nn.Conv2d(3, 3, 1), samples_of(MemoryReader([discs(0)]), plan), "cpu", settings
    )
    assert (benchmark.reference, benchmark.tolerance) == (pytest.approx(1.0), pytest.approx(3 * 0.005**0.5))
    plan = make_plan(batch=2)
    benchmark = PrecisionBenchmark(plan, torch.nn.Conv2d(3, 3, 1), samples_of(train_reader, plan), "cpu", settings)
    assert (benchmark.reference, benchmark.tolerance) == (1.0, LOSS_TOLERANCE)

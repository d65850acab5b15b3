"""float16 with loss scaling, by torch's scaler for CPUs: what a GPU without bfloat16 would do."""

import pytest
import torch

from segpipe.errors import ConfigError
from segpipe.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from segpipe.training.plan import StepSetting
from segpipe.training.speed import precision_benchmark
from segpipe.training.speed.precision_benchmark import candidate_settings
from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import candidate_params, random_batch
from tests.worlds.trainings import tiny_plan

HALF = StepSetting(precision="fp16", channels_last=False)


def stepper_of(setting, **recipe):
    plan = tiny_plan(**({"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.05, "ema": 0.9} | recipe))
    plan = plan.model_copy(update={"execution": plan.execution.model_copy(update={"setting": setting})})
    return plan, build_stepper(plan)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_half_precision_learns_what_full_precision_does(optimizer):
    """Gradients are scaled down before they are clipped; otherwise their norm would be thousands, and every step would be clipped."""
    _, half = stepper_of(HALF, optimizer=optimizer, steps=4)
    _, full = stepper_of(StepSetting(precision="fp32", channels_last=False), optimizer=optimizer, steps=4)
    before = [p.detach().clone() for p in full.network.parameters()]
    for number in range(4):
        losses = [float(s.step(number, *random_batch(4), 0)) for s in (half, full)]
        assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert half.scaler.get_scale() == 65536 and half.network[0].weight.dtype == torch.float32
    full_change = torch.cat(
        [(a.detach() - b).reshape(-1) for a, b in zip(full.network.parameters(), before, strict=True)]
    )
    half_change = torch.cat(
        [(a.detach() - b).reshape(-1) for a, b in zip(half.network.parameters(), before, strict=True)]
    )
    if optimizer == "sgd":  # Adam turns rounding of nearly zero gradients into full steps
        assert float((half_change - full_change).norm() / full_change.norm()) < 0.05


def overflow(stepper):
    """Take a step whose gradient is infinite."""
    handle = stepper.network[0].weight.register_hook(lambda gradient: gradient * torch.inf)
    stepper.step(1, *random_batch(4), 0)
    handle.remove()


def test_a_step_without_finite_gradients_is_skipped_and_lowers_the_scale():
    _, stepper = stepper_of(HALF)
    stepper.step(0, *random_batch(4), 0)
    before = [p.detach().clone() for p in stepper.network.parameters()]
    overflow(stepper)
    assert all(torch.equal(a, b) for a, b in zip(before, stepper.network.parameters(), strict=True))
    assert stepper.scaler.get_scale() == 32768
    stepper.step(2, *random_batch(4), 0)
    assert not torch.equal(before[0], next(stepper.network.parameters()))


def test_a_checkpoint_keeps_the_scale(tmp_path):
    plan, stepper = stepper_of(HALF)
    stepper.step(0, *random_batch(4), 0)
    overflow(stepper)
    stepper.step(2, *random_batch(4), 0)
    save_checkpoint(tmp_path, plan, stepper, {}, TrainingState(step=3))
    again = build_stepper(plan)
    load_checkpoint(tmp_path, plan, again)
    assert again.scaler.state_dict() == stepper.scaler.state_dict() and again.scaler.get_scale() == 32768
    for one in (stepper, again):
        one.step(3, *random_batch(4), 0)
    assert again.scaler.state_dict() == stepper.scaler.state_dict()
    for name, value in stepper.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name


def test_float16_is_for_gpus_and_timed_on_those_without_bfloat16(monkeypatch):
    with pytest.raises(ConfigError, match=r"train\.precision.*auto or bf16"):
        candidate_settings(candidate_params({"precision": "fp16"}).train, "cpu")
    settings = candidate_params({"channels_last": True}).train
    for bf16, timed in ((True, ["bf16", "fp32"]), (False, ["fp16", "fp32"])):
        monkeypatch.setattr(precision_benchmark, "has_bf16", lambda _, bf16=bf16: bf16)
        assert [s.precision for s in candidate_settings(settings, "cuda")] == timed
    assert [s.precision for s in candidate_settings(settings, "cpu")] == ["fp32"]
    assert [
        s.precision
        for s in candidate_settings(candidate_params({"precision": "fp16", "channels_last": True}).train, "cuda")
    ] == ["fp16"]

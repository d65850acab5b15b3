import os

import pytest
import torch

from segpipe.errors import ConfigError, MissingError
from segpipe.training import machine
from segpipe.training.machine import check_plan, choose_device, this_machine, worker_counts
from segpipe.training.plan import StepSetting
from tests.worlds.tiny_training import make_plan


@pytest.mark.parametrize(
    ("cores", "device", "devices", "workers"),
    [
        (1, "cpu", 1, [0]),
        (2, "cpu", 1, [1, 0]),
        (16, "cpu", 1, [4, 1, 0]),
        (16, "cpu", 4, [1, 0]),
        (4, "cpu", 4, [0]),
        (64, "cuda", 1, [12, 6]),
        (64, "cuda", 8, [7, 3]),
        (8, "cuda", 8, [1, 0]),
    ],
)
def test_processes_that_share_a_machine_share_its_cores(monkeypatch, cores, device, devices, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    counts = worker_counts(device, devices)
    assert counts == workers and (cores <= devices or devices * counts[0] < cores)


def test_a_plan_that_this_machine_cannot_follow_is_refused(monkeypatch):
    plan = make_plan(StepSetting(precision="bf16", channels_last=True))
    monkeypatch.setattr(machine, "has_bf16", lambda _: False)
    with pytest.raises(ConfigError, match=r"bfloat16.*segpipe plan tiny --refresh"):
        check_plan(plan)
    hungry = make_plan().model_copy(
        update={
            "execution": plan.execution.model_copy(
                update={"peak_memory_mib": 1 << 40, "setting": StepSetting(precision="fp32", channels_last=False)}
            )
        }
    )
    with pytest.raises(ConfigError, match="more memory"):
        check_plan(hungry)
    if not torch.cuda.is_available():
        other = plan.execution.machine.model_copy(update={"device": "cuda"})
        with pytest.raises(ConfigError, match="needs a GPU"):
            check_plan(plan.model_copy(update={"execution": plan.execution.model_copy(update={"machine": other})}))
        with pytest.raises(MissingError, match="no CUDA device"):
            choose_device("gpu")


def test_a_plan_from_another_machine_is_followed_with_a_note(capfd):
    plan = make_plan()
    check_plan(plan)
    assert "planned on any" in capfd.readouterr().err
    here = this_machine("cpu")
    check_plan(plan.model_copy(update={"execution": plan.execution.model_copy(update={"machine": here})}))
    assert capfd.readouterr().err == ""

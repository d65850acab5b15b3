"""Two processes that share a training compute what one computes; gloo on this machine's processor."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from segpipe.errors import ConfigError, MissingError
from segpipe.training.launch import _run_and_wait, launch
from segpipe.training.loop import train_on
from segpipe.training.ranks import any_rank, everywhere, fabric_layout, rank, ranks

from .conftest import CLASSES
from .tiny import tiny_plan


@pytest.fixture(scope="module")
def two(tmp_path_factory, repo_root):
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.two_ranks", tmp_path_factory.mktemp("ranks")],
        cwd=repo_root, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["default", "uneven"])
def test_two_processes_follow_the_curve_of_one(two, batch):
    """The default loss (weighted cross entropy and Dice), ignored pixels, without batch normalisation, fp32; a batch of 4, and
    of 5, which gives one process more images than the other."""
    found = two[batch]
    assert found["loss"] < 1e-4 and found["score"] < 1e-4 and found["weights"] < 1e-4, found
    assert found["losses"][-1] < 0.9 * found["losses"][0], "there is a curve to follow"


@pytest.mark.slow
def test_an_interrupt_of_one_process_stops_both_after_the_same_step(two):
    found = two["interrupted"]
    assert all(found["codes"]) and 0 < found["step"] < 150, found
    assert found["same"], "they go on to the bytes of a run that was not interrupted"


def test_a_single_process_asks_nobody():
    assert (rank(), ranks()) == (0, 1) and fabric_layout(False) == {"devices": 1}
    value = torch.ones(3)
    assert everywhere(value) is value and any_rank(True) and not any_rank(False)


def spread(plan, **execution):
    return plan.model_copy(update={"execution": plan.execution.model_copy(update=execution)})


def test_one_device_needs_no_launch_and_several_machines_need_torchrun_on_each():
    plan = tiny_plan()
    assert not launch(plan, ["train", "tiny"]) and not launch(plan.model_copy(update={"execution": None}), [])
    with pytest.raises(ConfigError, match=r"torchrun --nnodes 2 --nproc-per-node 4 .* -m segpipe train tiny"):
        launch(spread(plan, nodes=2, devices=4), ["train", "tiny"])
    cuda = plan.execution.machine.model_copy(update={"device": "cuda"})
    with pytest.raises(MissingError, match="more GPUs than there are"):
        launch(spread(plan, devices=1000, machine=cuda), ["train", "tiny"])


def test_a_process_of_torchrun_starts_no_others(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch(spread(tiny_plan(), nodes=2), [])


def test_a_batch_that_leaves_a_process_without_images_is_refused(tmp_path, train_reader, val_reader, monkeypatch):
    monkeypatch.setattr("segpipe.training.loop.ranks", lambda: 4)
    with pytest.raises(ConfigError, match=r"batch of 2, shared by 4 process.*set it to 4 or more"):
        train_on(tiny_plan(batch=2), CLASSES, train_reader, val_reader, tmp_path, tmp_path, tmp_path)


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_code(tmp_path):
    words = f"import os,sys,time; open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w'); "
    began = time.monotonic()
    with pytest.raises(SystemExit) as end:
        _run_and_wait(2, ["-c", words + "time.sleep(300) if os.environ['RANK'] == '0' else sys.exit(3)"], 1)
    assert end.value.code == 3 and time.monotonic() - began < 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]

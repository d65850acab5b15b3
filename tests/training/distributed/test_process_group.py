"""Two processes that share a training compute the same as one; with gloo, on the CPU."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from segpipe.errors import ConfigError, MissingError
from segpipe.training.distributed.process_group import any_rank, fabric_options, rank, sum_over_ranks, world_size
from segpipe.training.launch import _run_and_wait, launch
from segpipe.training.memory import load_parts, save_parts
from segpipe.training.train import train_on
from tests.worlds.tiny_training import CLASSES, make_classical_plan
from tests.worlds.trainings import tiny_plan


@pytest.fixture(scope="module")
def two(tmp_path_factory, repo_root):
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # beside other tests, waiting threads sleep
    process = subprocess.run(
        [sys.executable, "-m", "tests.worlds.two_processes", tmp_path_factory.mktemp("ranks")],
        cwd=repo_root,
        env=os.environ | threads,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "uneven", "batch norm", "parts", "sorted"])
def test_two_processes_follow_the_curve_of_one(two, name):
    """The default loss (weighted cross entropy and Dice), ignored pixels, fp32; a batch of 4, and of 5, which gives one process more
    images than the other; with dropout, with batch normalisation; in parts; losses that rank the pixels of the batch."""
    result = two[name]
    assert result["loss"] < 1e-4 and result["score"] < 1e-4 and result["weights"] < 1e-4, result
    assert result["losses"][-1] < 0.9 * result["losses"][0], "the loss falls"


@pytest.mark.slow
def test_an_interrupt_of_one_process_stops_both_after_the_same_step(two):
    result = two["interrupted"]
    assert all(result["codes"]) and 0 < result["step"] < 150, result
    assert result["same"], "they continue to the bytes of a run that was not interrupted"


@pytest.mark.slow
def test_members_of_an_ensemble_are_trained_by_both_one_after_another(two):
    result = two["members"]
    assert result["weights"] < 1e-4 and {name.split(".")[1] for name in result["names"]} == {"0", "1", "2"}


@pytest.mark.slow
def test_a_unet_follows_the_curve_of_one_process(two):
    """In float64 to its last digits, so nothing is missing. A deep network amplifies the rounding of float32 from step to step: the curve
    of one process on two threads deviates from that of one thread as fast as the curve of two processes does."""
    exact, processes, threads = two["unet in float64"], two["unet"], two["unet on two threads"]
    assert max(exact) < 1e-9 and max(processes[:5]) < 1e-4 and max(processes) < 1e-2, (exact, processes)
    assert max(processes) < 20 * max(threads) < 0.2, (processes, threads)


@pytest.mark.slow
def test_detectors_are_trained_by_both_and_their_losses_are_weighted_by_images(two):
    (one, single), (shared, *each_process) = two["detectors"]["one"], two["detectors"]["two"]
    assert len(shared) == len(one) and shared[0] == pytest.approx(one[0], rel=0.2), "with other proposals"
    for loss_and_gradient in each_process:
        assert loss_and_gradient == pytest.approx(single, rel=1e-6)


@pytest.mark.slow
def test_if_one_process_runs_out_of_memory_all_continue_in_parts(two):
    result = two["short"]
    assert all(result["codes"]) and "continues from the last checkpoint, in 2 parts" in result["output"], result
    assert result["memory"] == [{"step": 9, "accumulate": 2}], "from the checkpoint after step 8 on"
    assert result["remaining"] == []


def test_a_single_process_does_not_communicate():
    assert (rank(), world_size()) == (0, 1) and fabric_options(False) == {"devices": 1}
    value = torch.ones(3)
    assert sum_over_ranks(value) is value and any_rank(True) and not any_rank(False)


def with_execution(plan, **execution):
    return plan.model_copy(update={"execution": plan.execution.model_copy(update=execution)})


def test_one_device_needs_no_launch_and_several_machines_need_torchrun_on_each(tmp_path):
    plan = tiny_plan()
    assert not launch(plan, ["train", "tiny"], tmp_path)
    assert not launch(make_classical_plan(), [], tmp_path)
    with pytest.raises(ConfigError, match=r"torchrun --nnodes 2 --nproc-per-node 4 .* -m segpipe train tiny"):
        launch(with_execution(plan, nodes=2, devices=4), ["train", "tiny"], tmp_path)
    cuda = plan.execution.machine.model_copy(update={"device": "cuda"})
    with pytest.raises(MissingError, match="more GPUs than this machine has"):
        launch(with_execution(plan, devices=1000, machine=cuda), ["train", "tiny"], tmp_path)


def test_processes_that_ran_out_of_memory_are_started_again(tmp_path, monkeypatch, capfd):
    """This is repeated as long as one of them records that a batch needs more parts; any other failure ends the training."""
    plan, fits = with_execution(tiny_plan(), devices=2), iter([2, 4, 4])
    other = plan.model_copy(update={"seed": 4})

    def fail(*_, **__):
        save_parts(tmp_path / "member1", plan, next(fits))
        raise SystemExit(2)

    monkeypatch.setattr("segpipe.training.launch._run_and_wait", fail)
    with pytest.raises(SystemExit):
        launch(plan, ["train", "tiny"], tmp_path)
    assert next(fits, None) is None and capfd.readouterr().err.count("start again") == 2
    assert load_parts(tmp_path / "member1", plan) == 4
    assert load_parts(tmp_path / "member1", other) == 1, "a record of another plan"


def test_a_process_of_torchrun_starts_no_other_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch(with_execution(tiny_plan(), nodes=2), [], tmp_path)


def test_a_batch_that_leaves_a_process_without_images_is_refused(tmp_path, train_reader, val_reader, monkeypatch):
    monkeypatch.setattr("segpipe.training.train.world_size", lambda: 4)
    with pytest.raises(ConfigError, match=r"batch of 2, shared by 4 process.*set it to 4 or more"):
        train_on(tiny_plan(batch=2), CLASSES, train_reader, val_reader, tmp_path, tmp_path, tmp_path)


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_code(tmp_path):
    # The one that fails waits until the other has started.
    script = (
        f"import os,sys,time,pathlib; folder = pathlib.Path({str(tmp_path)!r}); (folder / os.environ['RANK']).touch()\n"
        "if os.environ['RANK'] == '0': time.sleep(300)\n"
        "while not (folder / '0').exists(): time.sleep(0.01)\n"
        "sys.exit(3)"
    )
    started = time.monotonic()
    with pytest.raises(SystemExit) as end:
        _run_and_wait(2, ["-c", script], 1)
    assert end.value.code == 3 and time.monotonic() - started < 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]

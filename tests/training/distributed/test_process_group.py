"""Two processes that share a training compute what one computes; gloo on this machine's processor."""

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
from tests.worlds.tiny_training import CLASSES
from tests.worlds.trainings import tiny_plan


@pytest.fixture(scope="module")
def two(tmp_path_factory, repo_root):
    done = subprocess.run(
        [sys.executable, "-m", "tests.worlds.two_processes", tmp_path_factory.mktemp("ranks")],
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "uneven", "batch norm", "parts", "sorted"])
def test_two_processes_follow_the_curve_of_one(two, name):
    """The default loss (weighted cross entropy and Dice), ignored pixels, fp32; a batch of 4, and of 5, which gives one process more
    images than the other; with dropout, with batch normalisation; in parts; losses that rank the pixels of the batch."""
    found = two[name]
    assert found["loss"] < 1e-4 and found["score"] < 1e-4 and found["weights"] < 1e-4, found
    assert found["losses"][-1] < 0.9 * found["losses"][0], "there is a curve to follow"


@pytest.mark.slow
def test_an_interrupt_of_one_process_stops_both_after_the_same_step(two):
    found = two["interrupted"]
    assert all(found["codes"]) and 0 < found["step"] < 150, found
    assert found["same"], "they go on to the bytes of a run that was not interrupted"


@pytest.mark.slow
def test_members_of_an_ensemble_are_trained_by_both_one_after_another(two):
    found = two["members"]
    assert found["weights"] < 1e-4 and {name.split(".")[1] for name in found["names"]} == {"0", "1", "2"}


@pytest.mark.slow
def test_a_unet_follows_the_curve_of_one_process(two):
    """In float64 to its last digits, so nothing is missing. A deep network blows the rounding of float32 up from step to step: the curve
    of one process on two threads leaves that of one thread as fast as the curve of two processes does."""
    exact, found, threads = two["unet in float64"], two["unet"], two["unet on two threads"]
    assert max(exact) < 1e-9 and max(found[:5]) < 1e-4 and max(found) < 1e-2, (exact, found)
    assert max(found) < 20 * max(threads) < 0.2, (found, threads)


@pytest.mark.slow
def test_detectors_are_trained_by_both_and_their_losses_count_by_images(two):
    (one, of_one), (shared, *of_two) = two["detectors"]["one"], two["detectors"]["two"]
    assert len(shared) == len(one) and shared[0] == pytest.approx(one[0], rel=0.2), "of other proposals"
    for of in of_two:
        assert of == pytest.approx(of_one, rel=1e-6)


@pytest.mark.slow
def test_where_one_process_runs_out_of_memory_all_go_on_in_parts(two):
    found = two["short"]
    assert all(found["codes"]) and "goes on from the last checkpoint, in 2 parts" in found["said"], found
    assert found["memory"] == [{"step": 9, "accumulate": 2}], "from the checkpoint after step 8 on"
    assert found["left"] == []


def test_a_single_process_asks_nobody():
    assert (rank(), world_size()) == (0, 1) and fabric_options(False) == {"devices": 1}
    value = torch.ones(3)
    assert sum_over_ranks(value) is value and any_rank(True) and not any_rank(False)


def spread(plan, **execution):
    return plan.model_copy(update={"execution": plan.execution.model_copy(update=execution)})


def test_one_device_needs_no_launch_and_several_machines_need_torchrun_on_each(tmp_path):
    plan = tiny_plan()
    assert not launch(plan, ["train", "tiny"], tmp_path)
    assert not launch(plan.model_copy(update={"execution": None}), [], tmp_path)
    with pytest.raises(ConfigError, match=r"torchrun --nnodes 2 --nproc-per-node 4 .* -m segpipe train tiny"):
        launch(spread(plan, nodes=2, devices=4), ["train", "tiny"], tmp_path)
    cuda = plan.execution.machine.model_copy(update={"device": "cuda"})
    with pytest.raises(MissingError, match="more GPUs than there are"):
        launch(spread(plan, devices=1000, machine=cuda), ["train", "tiny"], tmp_path)


def test_processes_that_ran_out_of_memory_are_started_again(tmp_path, monkeypatch, capfd):
    """As often as one of them says that a batch has to be in more parts; any other failure is one."""
    plan, fits = spread(tiny_plan(), devices=2), iter([2, 4, 4])
    other = plan.model_copy(update={"seed": 4})

    def fail(*_, **__):
        save_parts(tmp_path / "member1", plan, next(fits))
        raise SystemExit(2)

    monkeypatch.setattr("segpipe.training.launch._run_and_wait", fail)
    with pytest.raises(SystemExit):
        launch(plan, ["train", "tiny"], tmp_path)
    assert next(fits, None) is None and capfd.readouterr().err.count("start again") == 2
    assert load_parts(tmp_path / "member1", plan) == 4
    assert load_parts(tmp_path / "member1", other) == 1, "a word about another plan"


def test_a_process_of_torchrun_starts_no_others(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch(spread(tiny_plan(), nodes=2), [], tmp_path)


def test_a_batch_that_leaves_a_process_without_images_is_refused(tmp_path, train_reader, val_reader, monkeypatch):
    monkeypatch.setattr("segpipe.training.loop.world_size", lambda: 4)
    with pytest.raises(ConfigError, match=r"batch of 2, shared by 4 process.*set it to 4 or more"):
        train_on(tiny_plan(batch=2), CLASSES, train_reader, val_reader, tmp_path, tmp_path, tmp_path)


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_code(tmp_path):
    # The one that fails waits for the other to have begun.
    words = (
        f"import os,sys,time,pathlib; here = pathlib.Path({str(tmp_path)!r}); (here / os.environ['RANK']).touch()\n"
        "if os.environ['RANK'] == '0': time.sleep(300)\n"
        "while not (here / '0').exists(): time.sleep(0.01)\n"
        "sys.exit(3)"
    )
    began = time.monotonic()
    with pytest.raises(SystemExit) as end:
        _run_and_wait(2, ["-c", words], 1)
    assert end.value.code == 3 and time.monotonic() - began < 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]

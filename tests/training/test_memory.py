import json
import os
import subprocess
import sys

import pytest
import torch

from segpipe.errors import ConfigError
from segpipe.training.memory import is_out_of_memory, planned_to_fit, step_within_memory
from segpipe.training.sampling.batch_parts import split_batch
from segpipe.training.step import Stepper, build_stepper
from segpipe.training.telemetry.live_metrics import live_metrics
from segpipe.training.train import train_on
from tests.worlds.tiny_training import CLASSES
from tests.worlds.trainings import tiny_plan

CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
)
PLAIN = {"loss": {"cross_entropy": 1.0}, "class_weights": [1.0, 1.0, 1.0], "ema": 0.0}


def batch(n, ignored=False):
    draws = torch.Generator().manual_seed(5)
    images = torch.randn(n, 3, 32, 32, generator=draws)
    labels = torch.randint(0, 3, (n, 32, 32), generator=draws, dtype=torch.uint8)
    if ignored:
        labels[0, :20] = 255
    return images, labels


def gradients(accumulate, n=6, options=None, ignored=False, **recipe):
    """Loss and gradients of a step, in so many parts."""
    stepper = build_stepper(
        tiny_plan({"batch_norm": False} | (options or {}), **(PLAIN | recipe | {"batch": n, "accumulate": accumulate}))
    )
    loss = stepper._backward(*batch(n, ignored))
    return float(loss), torch.cat([p.grad.reshape(-1) for p in stepper.network.parameters()])


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
def test_plain_cross_entropy_in_parts_is_that_of_the_batch(parts):
    """Also where the parts are of unequal size (6 in 4)."""
    (loss, slope), (loss_in_parts, slope_in_parts) = gradients(1), gradients(parts)
    assert loss_in_parts == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(slope_in_parts, slope, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"class_weights": [1.0, 2.0, 3.0]},
        {"ignored": True},
        {"loss": {"dice": 1.0}},
        {"options": {"batch_norm": True}},
    ],
    ids=["class weights", "ignored pixels", "dice", "batch norm"],
)
def test_what_is_taken_over_the_batch_is_near_but_not_the_same_in_parts(changed):
    """As the module says: the test holds its words to account."""
    (loss, slope), (loss_in_parts, slope_in_parts) = gradients(1, **changed), gradients(3, **changed)
    off = float((slope_in_parts - slope).norm() / slope.norm())
    assert 1e-4 < off < 0.5 and abs(loss_in_parts - loss) < 0.05 * loss


def test_parts_hold_each_image_once():
    images, labels = batch(7)
    parts = list(split_batch(images, list(labels), 3))
    assert [len(part) for part, _, _ in parts] == [3, 2, 2] and sum(share for _, _, share in parts) == pytest.approx(1)
    assert torch.equal(torch.cat([part for part, _, _ in parts]), images)
    assert torch.equal(torch.stack([label for _, known, _ in parts for label in known]), labels)
    ((whole, known, share),) = split_batch(images, labels, 1)
    assert whole is images and known is labels and share == 1


def test_which_errors_are_of_memory():
    assert (
        is_out_of_memory(CPU_ERROR)
        and is_out_of_memory(MemoryError())
        and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    )
    assert is_out_of_memory(RuntimeError("could not create a primitive")), (
        "what oneDNN says in the middle of a step under ulimit -v"
    )
    assert is_out_of_memory(RuntimeError("could not create a primitive")), (
        "what oneDNN says under ulimit -v, in the middle of a step"
    )
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("shapes do not match")) and not is_out_of_memory(
        ValueError("not enough memory")
    )


class Narrow(torch.nn.Module):
    """A network that has memory for so many images at a time; fails in the backward pass where `late`."""

    def __init__(self, network, room, late=False):
        super().__init__()
        self.network, self.room, self.late = network, room, late

    def forward(self, images):
        logits = self.network(images)
        if len(images) > self.room:
            if not self.late:
                raise CPU_ERROR
            logits.register_hook(fail)
        return logits


def fail(_):
    raise CPU_ERROR


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
def test_a_step_that_does_not_fit_is_taken_in_parts(late, capfd):
    plan = tiny_plan({"batch_norm": False}, **PLAIN, batch=8)
    stepper, calm = build_stepper(plan), build_stepper(plan)
    stepper.model = Narrow(stepper.network, 2, late)
    stepper.fabric.no_backward_sync = calm.fabric.no_backward_sync = lambda *_, **__: torch.enable_grad()
    stepper.fabric.backward = lambda loss: loss.backward()
    for number in range(3):
        loss = step_within_memory(stepper, number, *batch(8), plan.seed)
        assert float(loss) == pytest.approx(float(calm.step(number, *batch(8), plan.seed)), abs=1e-5)
    assert stepper.accumulate == 4
    for mine, theirs in zip(stepper.network.parameters(), calm.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
    said = capfd.readouterr().err
    assert said.count("out of memory at step 1") == 2 and "in 4 parts of 2" in said


def test_what_ended_a_training_is_told_though_its_curves_can_not_be_closed(tmp_path, monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("dvclive.Live.end", no_thread)
    with pytest.raises(ConfigError, match="out of memory") as caught, live_metrics(tmp_path):
        raise ConfigError("out of memory with 1 image")
    assert caught.value.__notes__ == ["its curves may lack their end: can't start new thread"]


def test_other_errors_are_let_through():
    plan = tiny_plan()
    with pytest.raises(RuntimeError, match=r"channels"):
        step_within_memory(build_stepper(plan), 0, torch.zeros(2, 5, 32, 32), batch(2)[1], 0)


def test_with_one_image_at_a_time_there_is_nothing_to_halve(monkeypatch):
    def step(*_):
        raise CPU_ERROR

    monkeypatch.setattr(Stepper, "step", step)
    stepper = build_stepper(tiny_plan(batch=3))
    with pytest.raises(ConfigError, match=r"out of memory with 1 image at a time.*smaller patch"):
        step_within_memory(stepper, 0, *batch(3), 0)
    stepper = build_stepper(tiny_plan(batch=4))
    stepper.least_batch = 2
    with pytest.raises(ConfigError, match="out of memory with 2 images at a time"):
        step_within_memory(stepper, 0, *batch(4), 0)


def test_training_goes_on_in_parts_and_says_so_in_its_history(tmp_path, train_reader, val_reader, monkeypatch, capfd):
    plan, step = tiny_plan(steps=6, batch=4, val_every=3, checkpoint_every=2), Stepper.step
    accumulated = []

    def narrow(self, number, *rest):
        if number >= 3 and self.accumulate < 2:
            raise CPU_ERROR
        if number == 5 and not accumulated.count(5):
            accumulated.append(5)
            raise KeyboardInterrupt  # and is resumed below
        accumulated.append(self.accumulate)
        return step(self, number, *rest)

    monkeypatch.setattr(Stepper, "step", narrow)
    folders = tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        train_on(plan, CLASSES, train_reader, val_reader, *folders)
    assert accumulated == [1, 1, 1, 2, 2, 5]
    train_on(plan, CLASSES, train_reader, val_reader, *folders)
    assert accumulated[6:] == [2, 2], "it goes on from the checkpoint after step 4, in as many parts"
    assert json.loads((tmp_path / "out" / "history.json").read_text())["memory"] == [{"step": 4, "accumulate": 2}]
    assert "out of memory at step 4: from here on a batch of 4 is computed in 2 parts of 2" in capfd.readouterr().err


def test_a_plan_takes_as_many_parts_as_fit():
    reasons, seen = {}, []

    def measure(draft):
        seen.append(draft.recipe.accumulate)
        if draft.recipe.batch // draft.recipe.accumulate > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return draft.recipe

    assert planned_to_fit(tiny_plan(batch=8), measure, reasons).accumulate == 4
    assert seen == [1, 2, 4] and reasons["accumulation"].startswith("4 parts")
    seen.clear()
    with pytest.raises(ConfigError, match="out of memory with 1 image"):
        planned_to_fit(tiny_plan(batch=8), measure, {}, ranks=4)
    assert seen == [1, 2], "each of four processes has two images"
    with pytest.raises(ConfigError, match="out of memory with 1 image"):
        planned_to_fit(tiny_plan(batch=8), lambda _: (_ for _ in ()).throw(MemoryError()), {})


FULL = """
import mmap, resource, threading
from segpipe.training.memory_reserve import reserve, release_piece

def address_space():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def starts():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True

reserve()
free = address_space()
resource.setrlimit(resource.RLIMIT_AS, (free + (1 << 30),) * 2)
touched = resident()
reserve()
reserve()
print((address_space() - free) >> 20, (resident() - touched) >> 20)
full = []
for size in (64 << 20, 4 << 20, 1 << 16):
    try:
        while True:
            full.append(mmap.mmap(-1, size))
    except OSError:
        pass
print(starts())
release_piece()
print(starts())
for _ in range(9):
    release_piece()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_where_address_space_is_full_what_was_kept_back_makes_room(repo_root):
    done = subprocess.run([sys.executable, "-c", FULL], cwd=repo_root, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["512", "0", "False", "True"], done.stdout + done.stderr


LIMITED = """
import resource, sys
import torch
from segpipe.training.telemetry.live_metrics import live_metrics
from segpipe.training.loop import build_stepper
from segpipe.training.memory import step_within_memory
from tests.worlds.trainings import tiny_plan

plan = tiny_plan({"width": 64}, batch=16, patch=128, ema=0.0)
stepper = build_stepper(plan)
images, labels = torch.randn(16, 3, 128, 128), torch.zeros(16, 128, 128, dtype=torch.uint8)
stepper.step(0, images[:2], labels[:2], 0)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (350 << 20),) * 2)
loss = step_within_memory(stepper, 1, images, labels, 0)
print(stepper.accumulate, float(loss))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_a_real_allocator_that_has_no_more_to_give(repo_root):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    accumulate, loss = done.stdout.split()
    assert int(accumulate) in (2, 4, 8, 16) and 0 < float(loss) < 5, done.stdout + done.stderr
    assert "out of memory at step 2" in done.stderr

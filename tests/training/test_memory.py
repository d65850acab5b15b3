"""A batch in parts, planned or because memory ran out."""

import json
import os
import subprocess
import sys

import pytest
import torch

from segpipe.errors import ConfigError
from segpipe.training.memory import is_out_of_memory, step_within_memory
from segpipe.training.sampling.batch_parts import split_batch
from segpipe.training.step import Stepper, build_stepper
from segpipe.training.train import train_on
from tests.worlds.tiny_training import CLASSES, random_batch
from tests.worlds.trainings import tiny_plan

CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
)
PLAIN = {"loss": {"cross_entropy": 1.0}, "class_weights": [1.0, 1.0, 1.0], "ema": 0.0}


def gradients(accumulate, n=6, options=None, ignored=False, **recipe):
    """Loss and gradients of a step in `accumulate` parts."""
    stepper = build_stepper(
        tiny_plan({"batch_norm": False} | (options or {}), **(PLAIN | recipe | {"batch": n, "accumulate": accumulate}))
    )
    loss = stepper._backward(*random_batch(n, ignored))
    return float(loss), torch.cat([p.grad.reshape(-1) for p in stepper.network.parameters()])


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
def test_plain_cross_entropy_in_parts_equals_that_of_the_batch(parts):
    """Also if the parts differ in size (6 images in 4 parts)."""
    (loss, gradient), (loss_in_parts, gradient_in_parts) = gradients(1), gradients(parts)
    assert loss_in_parts == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(gradient_in_parts, gradient, atol=1e-6, rtol=1e-5)


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
def test_quantities_of_the_batch_are_similar_but_not_equal_in_parts(changed):
    """The docstring of the module lists these differences."""
    (loss, gradient), (loss_in_parts, gradient_in_parts) = gradients(1, **changed), gradients(3, **changed)
    difference = float((gradient_in_parts - gradient).norm() / gradient.norm())
    assert 1e-4 < difference < 0.5 and abs(loss_in_parts - loss) < 0.05 * loss


def test_parts_contain_each_image_once():
    images, labels = random_batch(7)
    parts = list(split_batch(images, list(labels), 3))
    assert [len(part) for part, _, _ in parts] == [3, 2, 2] and sum(share for _, _, share in parts) == pytest.approx(1)
    assert torch.equal(torch.cat([part for part, _, _ in parts]), images)
    assert torch.equal(torch.stack([label for _, part_labels, _ in parts for label in part_labels]), labels)
    ((whole, whole_labels, share),) = split_batch(images, labels, 1)
    assert whole is images and whole_labels is labels and share == 1


def test_errors_that_report_lack_of_memory():
    assert (
        is_out_of_memory(CPU_ERROR)
        and is_out_of_memory(MemoryError())
        and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    )
    assert is_out_of_memory(RuntimeError("could not create a primitive")), "by oneDNN in a step under ulimit -v"
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("shapes do not match")) and not is_out_of_memory(
        ValueError("not enough memory")
    )


class LittleMemory(torch.nn.Module):
    """A network with memory for `max_images` at a time; it fails in the backward pass if `late`."""

    def __init__(self, network, max_images, late=False):
        super().__init__()
        self.network, self.max_images, self.late = network, max_images, late

    def forward(self, images):
        logits = self.network(images)
        if len(images) > self.max_images:
            if not self.late:
                raise CPU_ERROR
            logits.register_hook(fail)
        return logits


def fail(_):
    raise CPU_ERROR


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
def test_a_step_that_does_not_fit_is_taken_in_parts(late, capfd):
    plan = tiny_plan({"batch_norm": False}, **PLAIN, batch=8)
    stepper, unlimited = build_stepper(plan), build_stepper(plan)
    stepper.model = LittleMemory(stepper.network, 2, late)
    stepper.fabric.no_backward_sync = unlimited.fabric.no_backward_sync = lambda *_, **__: torch.enable_grad()
    stepper.fabric.backward = lambda loss: loss.backward()
    for number in range(3):
        loss = step_within_memory(stepper, number, *random_batch(8), plan.seed)
        assert float(loss) == pytest.approx(float(unlimited.step(number, *random_batch(8), plan.seed)), abs=1e-5)
    assert stepper.accumulate == 4
    for limited, expected in zip(stepper.network.parameters(), unlimited.network.parameters(), strict=True):
        torch.testing.assert_close(limited, expected, atol=1e-4, rtol=0)
    output = capfd.readouterr().err
    assert output.count("out of memory at step 1") == 2 and "in 4 parts of 2" in output


def test_other_errors_are_raised():
    plan = tiny_plan()
    with pytest.raises(RuntimeError, match=r"channels"):
        step_within_memory(build_stepper(plan), 0, torch.zeros(2, 5, 32, 32), random_batch(2)[1], 0)


def test_a_part_of_one_image_cannot_be_split(monkeypatch):
    def step(*_):
        raise CPU_ERROR

    monkeypatch.setattr(Stepper, "step", step)
    stepper = build_stepper(tiny_plan(batch=3))
    with pytest.raises(ConfigError, match=r"out of memory with 1 image at a time.*smaller patch"):
        step_within_memory(stepper, 0, *random_batch(3), 0)
    stepper = build_stepper(tiny_plan(batch=4))
    stepper.min_batch = 2
    with pytest.raises(ConfigError, match="out of memory with 2 images at a time"):
        step_within_memory(stepper, 0, *random_batch(4), 0)


def test_training_continues_in_parts_and_records_it_in_its_history(
    tmp_path, train_reader, val_reader, monkeypatch, capfd
):
    plan, step = tiny_plan(steps=6, batch=4, val_every=3, checkpoint_every=2), Stepper.step
    accumulated = []

    def little_memory(self, number, *rest):
        if number >= 3 and self.accumulate < 2:
            raise CPU_ERROR
        if number == 5 and not accumulated.count(5):
            accumulated.append(5)
            raise KeyboardInterrupt  # it is resumed below
        accumulated.append(self.accumulate)
        return step(self, number, *rest)

    monkeypatch.setattr(Stepper, "step", little_memory)
    folders = tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        train_on(plan, CLASSES, train_reader, val_reader, *folders)
    assert accumulated == [1, 1, 1, 2, 2, 5]
    train_on(plan, CLASSES, train_reader, val_reader, *folders)
    assert accumulated[6:] == [2, 2], "it continues from the checkpoint after step 4, in as many parts"
    assert json.loads((tmp_path / "out" / "history.json").read_text())["memory"] == [{"step": 4, "accumulate": 2}]
    assert "out of memory at step 4: from here on a batch of 4 is computed in 2 parts of 2" in capfd.readouterr().err


LIMITED_ADDRESS_SPACE = """
import resource, sys
import torch
from segpipe.training.step import build_stepper
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
def test_a_step_continues_in_parts_when_a_real_allocator_fails(repo_root):
    process = subprocess.run(
        [sys.executable, "-c", LIMITED_ADDRESS_SPACE],
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert process.returncode == 0, process.stderr
    accumulate, loss = process.stdout.split()
    assert int(accumulate) in (2, 4, 8, 16) and 0 < float(loss) < 5, process.stdout + process.stderr
    assert "out of memory at step 2" in process.stderr

"""A training step never copies a number from the device: on a GPU, the process would wait until all its work is done."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from segpipe.training.losses.combined import TERMS
from segpipe.training.step import build_stepper
from tests.worlds.trainings import tiny_plan

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_consecutive", "_unique2", "equal", "is_nonzero"}


class Watch(TorchDispatchMode):
    """Records the operations that copy a value from the device, including indexing by a mask."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name == "index" and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name in WAITS or masked:
            self.operations.append(name)
        return func(*args, **(kwargs or {}))


def waits(plan):
    """The waiting operations of two steps."""
    stepper = build_stepper(plan)
    labels, images = torch.randint(0, 3, (4, 32, 32)).to(torch.uint8), torch.randn(4, 3, 32, 32)
    labels[0, 0] = 255
    stepper.step(0, images, labels, 3)  # in the first step, an optimiser creates its state
    with Watch() as watch:
        stepper.step(1, images, labels, 3)
        stepper.step(2, images, labels, 3)
    return watch.operations


@pytest.mark.parametrize("term", TERMS)
def test_no_term_of_the_loss_waits(term):
    assert waits(tiny_plan({"dropout": 0.1}, loss={term: 1.0})) == []


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "adam", "sgd"])
def test_no_optimiser_waits(optimizer):
    loss = {"cross_entropy": {"label_smoothing": 0.1}, "dice": 0.5, "top_k": {"threshold": 0.5}}
    assert waits(tiny_plan(loss=loss, optimizer=optimizer, accumulate=2, batch=4)) == []


def test_the_watch_records_waiting_operations():
    with Watch() as watch:
        float(torch.ones(()))
        torch.ones(3)[torch.tensor([True, False, True])]
    assert watch.operations == ["_local_scalar_dense", "index"]

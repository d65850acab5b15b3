"""Trainings by one process and by two, as forks of a process that has imported torch: ``python -m tests.training.two_ranks FOLDER``.

Prints a JSON object: what the test compares. The processes are told of each other as torchrun would tell them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from segpipe.training.batches import batches
from segpipe.training.folds import Dealt
from segpipe.training.loop import set_up
from segpipe.training.members import train_members
from segpipe.training.plan import Folds, Setting
from segpipe.training.ranks import leave, rank, ranks
from segpipe.training.stepper import Stepper
from segpipe.training.tasks import samples_of

from .conftest import CLASSES, MemoryReader, draw, make_plan
from .tiny import tiny_plan
from .zygote import forked, newest, result, train, wait

READERS = MemoryReader([draw(i, bar=i % 4 == 0) for i in range(8)]), MemoryReader([draw(100 + i) for i in range(3)])
OPTIONS = {"batch_norm": False}
SGD = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05}
"""Adam makes whole steps of the rounding of gradients that are 0 but for it, such as those of biases before normalisation."""
PLAN = {"steps": 24, "val_every": 8, "augment": "light", "learning_rate": 1e-2}


def start(folder: Path, plan, ranks: int, narrow: int | None = None, work=train) -> list[int]:
    """The process ids of a training's processes. narrow: the one that has no memory for a whole batch from step 10 on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def of(rank: int):
        def run() -> None:
            torch.set_num_threads(1)
            if ranks > 1:
                os.environ.update(
                    TORCHELASTIC_RUN_ID="test", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
                    WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks), GROUP_RANK="0",
                )  # fmt: skip
            if rank == narrow:
                run_short_of_memory()
            work(folder, plan, READERS)

        return run

    return [forked(of(rank), folder.with_suffix(f".{rank}.log")) for rank in range(ranks)]


def finish(folder: Path, children: list[int]) -> None:
    codes = [wait(child) for child in children]
    if any(codes):
        sys.exit(f"{codes}\n" + "\n".join(path.read_text() for path in folder.parent.glob(f"{folder.name}*.log")))


def run_short_of_memory() -> None:
    step = Stepper.step

    def narrow(self, number, *rest):
        if number >= 10 and self.accumulate < 2:
            raise MemoryError
        return step(self, number, *rest)

    Stepper.step = narrow  # type: ignore[method-assign]


def compare(folder: Path, name: str, plan) -> dict:
    """How far the curves and weights of two processes lie from those of one."""
    one, two = folder / f"{name}-one", folder / f"{name}-two"
    finish(one, start(one, plan, 1))
    finish(two, start(two, plan, 2))
    curves = [json.loads((path / "out" / "history.json").read_text()) for path in (one, two)]
    weights = [load_file(path / "out" / "weights.safetensors") for path in (one, two)]
    losses = [[entry["loss"] for entry in curve["train"]] for curve in curves]
    scores = [[entry["iou_macro"] for entry in curve["val"]] for curve in curves]
    return {
        "losses": losses[0],
        "loss": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "score": max(abs(a - b) for a, b in zip(*scores, strict=True)),
        "weights": max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0]),
    }


def differentiate(folder: Path, plan, readers) -> None:
    """The gradient of the first batch, in a file."""
    stepper, here = set_up(plan), {"rank": rank(), "ranks": ranks()}
    images, labels = next(batches(samples_of(readers[0], plan), plan.recipe, 0, **here))
    stepper._backward(images.contiguous(memory_format=stepper.format), labels)
    if rank() == 0:
        save_file({name: p.grad.contiguous() for name, p in stepper.network.named_parameters()}, folder)


def unet_gradients(folder: Path) -> dict:
    """How far the gradient of a U-Net of two processes lies from that of one, and as a measure, that in another memory format."""
    plan = make_plan(batch=5)
    last = plan.execution.model_copy(update={"setting": Setting(precision="fp32", channels_last=True)})
    runs = {"one": (plan, 1), "two": (plan, 2), "last": (plan.model_copy(update={"execution": last}), 1)}
    for name, (planned, count) in runs.items():
        finish(folder / name, start(folder / name, planned, count, work=differentiate))
    one, two, last = (load_file(folder / name) for name in runs)

    def apart(other) -> float:
        return (
            float(sum((one[k] - other[k]).square().sum() for k in one) / sum(one[k].square().sum() for k in one)) ** 0.5
        )

    return {"two": apart(two), "last": apart(last)}


def interrupt_one(folder: Path) -> dict:
    """Ctrl-C reaches the second process alone: both stop after the same step, and go on to the bytes of an undisturbed run."""
    plan = tiny_plan(OPTIONS, steps=150, val_every=50, augment="off", batch=4)
    whole, halted = folder / "whole", folder / "halted"
    finish(whole, start(whole, plan, 2))
    children = start(halted, plan, 2)
    while not (halted / "live" / "metrics.json").exists():  # its first steps are done
        time.sleep(0.005)
    os.kill(children[1], signal.SIGINT)
    codes, step = [wait(child) for child in children], newest(halted / "checkpoints")
    finish(halted, start(halted, plan, 2))
    return {"codes": codes, "step": step, "same": result(whole) == result(halted)}


def one_runs_short(folder: Path) -> dict:
    """One process of two has no memory for its share at once: both end, and the same command goes on in parts."""
    plan, short = tiny_plan(OPTIONS, **(PLAN | {"batch": 4, "checkpoint_every": 4})), folder / "short"
    codes = [wait(child) for child in start(short, plan, 2, narrow=1)]
    said = short.with_suffix(".1.log").read_text()
    finish(short, start(short, plan, 2, narrow=1))
    history = json.loads((short / "out" / "history.json").read_text())
    return {
        "codes": codes,
        "said": said,
        "memory": history["memory"],
        "left": [p.name for p in (short / "checkpoints").iterdir()],
    }


def ensemble(folder: Path, plan, readers) -> None:
    """The members of an ensemble, one after another."""
    train_reader, val = readers
    keys = [*train_reader.keys, *val.keys]
    dealt = Dealt(readers, keys, [place % 3 for place in range(len(keys))])
    train_members(plan, CLASSES, dealt, val, folder / "out", folder / "live", folder / "checkpoints")
    leave()


def members(folder: Path) -> dict:
    """How far the members that two processes train lie from those of one."""
    plan = tiny_plan(OPTIONS, steps=6, val_every=3, augment="light", learning_rate=1e-2, batch=4)
    plan = plan.model_copy(update={"folds": Folds(count=3, dealt="groups")})
    for name, count in (("members-one", 1), ("members-two", 2)):
        finish(folder / name, start(folder / name, plan, count, work=ensemble))
    one, two = (load_file(folder / name / "out" / "weights.safetensors") for name in ("members-one", "members-two"))
    return {"names": sorted(two), "weights": max(float((one[key] - two[key]).abs().max()) for key in one)}


def main(folder: Path) -> None:
    default = PLAN | {"loss": {"cross_entropy": 1.0, "dice": 0.5}, "class_weights": [1.0, 2.0, 3.0], "batch": 4}
    report = {
        "default": compare(folder, "default", tiny_plan(OPTIONS, **default)),
        "uneven": compare(folder, "uneven", tiny_plan(OPTIONS, **(default | {"batch": 5}))),
        "batch norm": compare(folder, "batch-norm", tiny_plan(**(default | SGD | {"batch": 5}))),
        "unet": unet_gradients(folder),
        "interrupted": interrupt_one(folder),
        "members": members(folder),
        "short": one_runs_short(folder),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

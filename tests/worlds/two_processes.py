"""Trainings by one process and by two, as forks of a process that has imported torch: ``python -m tests.worlds.two_processes FOLDER``.

Prints a JSON object with the values that the tests compare. The processes have the environment that torchrun would give them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import segmentation_models_pytorch
import torch
import torchvision.models.detection
from safetensors.torch import load_file

import segpipe.training.step
from segpipe.training.distributed.process_group import leave_process_group, mean_over_ranks, rank, world_size
from segpipe.training.ensemble import train_members
from segpipe.training.folds import FoldImages
from segpipe.training.plan import Folds
from segpipe.training.sampling.crops import batches
from segpipe.training.sampling.detection import detection_loss
from segpipe.training.step import Stepper, build_stepper
from segpipe.training.tasks import samples_of
from tests.worlds.detectors import detector_plan, discs
from tests.worlds.forked_commands import forked, newest, result, train, wait
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draw, make_plan
from tests.worlds.trainings import tiny_plan

READERS = MemoryReader([draw(i, bar=i % 4 == 0) for i in range(8)]), MemoryReader([draw(100 + i) for i in range(3)])
IMPORTED = segmentation_models_pytorch, torchvision.models.detection
"""Modules that networks need, so that forks have them."""
OPTIONS = {"batch_norm": False, "dropout": 0.1}
SORTED = {"lovasz": 1.0, "top_k": {"share": 0.1, "threshold": 0.1}}
"""Losses that rank the pixels of the whole batch."""
STEPS = 10
"""Steps of the U-Nets and detectors."""
SGD = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05}
"""Adam turns rounding into full steps for gradients that should be 0, such as those of biases before normalisation."""
PLAN = {"steps": 24, "val_every": 8, "augment": "light", "learning_rate": 1e-2}


def start(folder: Path, plan, processes: int, short_of_memory: int | None = None, work=train) -> list[int]:
    """Start the processes of a training. Returns their process ids.

    short_of_memory: the rank that has no memory for a whole batch from step 10 on.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def work_of(rank: int):
        def run() -> None:
            torch.set_num_threads(1)
            if processes > 1:
                os.environ.update(
                    TORCHELASTIC_RUN_ID="test",
                    MASTER_ADDR="127.0.0.1",
                    MASTER_PORT=str(port),
                    RANK=str(rank),
                    LOCAL_RANK=str(rank),
                    WORLD_SIZE=str(processes),
                    LOCAL_WORLD_SIZE=str(processes),
                    GROUP_RANK="0",
                )
            if rank == short_of_memory:
                limit_memory()
            work(folder, plan, READERS)

        return run

    return [forked(work_of(rank), folder.with_suffix(f".{rank}.log")) for rank in range(processes)]


def finish(folder: Path, children: list[int]) -> None:
    codes = [wait(child) for child in children]
    if any(codes):
        sys.exit(f"{codes}\n" + "\n".join(path.read_text() for path in folder.parent.glob(f"{folder.name}*.log")))


def limit_memory() -> None:
    """Make steps from the tenth on raise MemoryError, unless the batch is in parts."""
    step = Stepper.step

    def limited(self, number, *rest):
        if number >= 10 and self.accumulate < 2:
            raise MemoryError
        return step(self, number, *rest)

    Stepper.step = limited


def compare(folder: Path, name: str, plan) -> dict:
    """The differences of curves and weights between two processes and one."""
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


def step_by_step(folder: Path, plan, readers, threads: int = 1) -> None:
    """Write the exact losses of the plan's first steps to a file."""
    stepper, process = build_stepper(plan), {"rank": rank(), "world_size": world_size()}
    torch.set_num_threads(threads)
    stream = batches(samples_of(readers[0], plan), plan.recipe, 0, 0, STEPS, **process)
    losses = [float(stepper.step(number, *batch, plan.seed)) for number, batch in enumerate(stream)]
    if rank() == 0:
        folder.write_text(json.dumps(losses))


def step_by_step_in_float64(folder: Path, plan, readers) -> None:
    torch.Tensor.float = torch.Tensor.double  # losses and normalisation call it
    torch.set_default_dtype(torch.float64)  # Fabric converts the network's outputs to it
    segpipe.training.step._precision = lambda *_: {"precision": "64-true"}
    step_by_step(folder, plan, readers)


def step_by_step_on_two_threads(folder: Path, plan, readers) -> None:
    step_by_step(folder, plan, readers, threads=2)


def unet(folder: Path, work, processes: int = 2, other_work=None) -> list[float]:
    """The differences of the losses of two processes (or of other work) from those of one process.

    The training is that of a pretrained U-Net with stochastic depth and unused parameters, cross entropy and Dice, AdamW with a warm-up.
    """
    plan = make_plan(steps=2000, warmup_steps=100, batch=5, class_weights=[1.0, 2.0, 3.0])
    plan = plan.model_copy(update={"options": {"encoder": "tf_efficientnet_lite0", "encoder_weights": "auto"}})
    other_work = other_work or work
    paths = [folder / f"{work.__name__}-1", folder / f"{other_work.__name__}-other"]
    for path, count, each_work in zip(paths, (1, processes), (work, other_work), strict=True):
        if not path.exists():  # two comparisons share the curve of one process
            finish(path, start(path, plan, count, work=each_work))
    one, two = (json.loads(path.read_text()) for path in paths)
    return [abs(a - b) for a, b in zip(one, two, strict=True)]


class MeanOfImages(torch.nn.Module):
    """Stands in for a detector: its loss is a mean over its images, times a weight that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, images, _):
        return {"first": self.weight * images.mean(), "second": self.weight**2 * images.square().mean()}


def detect(folder: Path, plan, _) -> None:
    """Write a detector's losses step by step, in each process; and loss and gradient of `MeanOfImages`, with more images in the first."""
    step_by_step(folder, plan, [MemoryReader([discs(i) for i in range(4)])])
    network, images = MeanOfImages(), torch.arange(5.0)[:, None, None, None]
    loss = detection_loss(network, (images[rank() :: world_size()], []), torch.device("cpu"))
    loss.backward()
    values = torch.stack([loss.detach(), mean_over_ranks(network.weight.grad)])
    leave_process_group()
    folder.with_suffix(f".{os.environ.get('RANK', 0)}.json").write_text(json.dumps(values.tolist()))


def detectors(folder: Path) -> dict:
    plan = detector_plan(batch=3, steps=STEPS)
    results = {}
    for name, count in (("one", 1), ("two", 2)):
        path = folder / f"detector-{name}"
        finish(path, start(path, plan, count, work=detect))
        files = [path, *sorted(folder.glob(f"{path.name}.*.json"))]
        results[name] = [json.loads(file.read_text()) for file in files]
    return results


def interrupt_one(folder: Path) -> dict:
    """Ctrl-C reaches the second process alone: both stop after the same step, and continue to the bytes of an undisturbed run."""
    plan = tiny_plan(OPTIONS, steps=150, val_every=50, augment="off", batch=4)
    whole, halted = folder / "whole", folder / "halted"
    finish(whole, start(whole, plan, 2))
    children = start(halted, plan, 2)
    end = time.monotonic() + 240
    while not (halted / "live" / "metrics.json").exists():  # until its first steps are done
        assert time.monotonic() < end, halted.with_suffix(".1.log").read_text()
        time.sleep(0.005)
    os.kill(children[1], signal.SIGINT)
    codes, step = [wait(child) for child in children], newest(halted / "checkpoints")
    finish(halted, start(halted, plan, 2))
    return {"codes": codes, "step": step, "same": result(whole) == result(halted)}


def one_runs_short(folder: Path) -> dict:
    """One process of two has no memory for its share at once: both end, and the same command continues in parts."""
    plan, short = tiny_plan(OPTIONS, **(PLAN | {"batch": 4, "checkpoint_every": 4})), folder / "short"
    codes = [wait(child) for child in start(short, plan, 2, short_of_memory=1)]
    output = short.with_suffix(".1.log").read_text()
    finish(short, start(short, plan, 2, short_of_memory=1))
    history = json.loads((short / "out" / "history.json").read_text())
    return {
        "codes": codes,
        "output": output,
        "memory": history["memory"],
        "remaining": [p.name for p in (short / "checkpoints").iterdir()],
    }


def ensemble(folder: Path, plan, readers) -> None:
    """Train the members of an ensemble, one after another."""
    train_reader, val = readers
    keys = [*train_reader.keys, *val.keys]
    fold_images = FoldImages(readers, keys, [index % 3 for index in range(len(keys))])
    train_members(plan, CLASSES, fold_images, val, folder / "out", folder / "live", folder / "checkpoints")
    leave_process_group()


def members(folder: Path) -> dict:
    """The differences between the members that two processes train and those of one."""
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
        "parts": compare(folder, "parts", tiny_plan(OPTIONS, **(default | {"batch": 8, "accumulate": 2}))),
        "sorted": compare(folder, "sorted", tiny_plan(OPTIONS, **(default | {"batch": 5, "loss": SORTED}))),
        "detectors": detectors(folder),
        "unet": unet(folder, step_by_step),
        "unet on two threads": unet(folder, step_by_step, 1, step_by_step_on_two_threads),
        "unet in float64": unet(folder, step_by_step_in_float64),
        "interrupted": interrupt_one(folder),
        "members": members(folder),
        "short": one_runs_short(folder),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

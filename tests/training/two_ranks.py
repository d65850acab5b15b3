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
from safetensors.torch import load_file

from .conftest import MemoryReader, draw
from .tiny import tiny_plan
from .zygote import forked, newest, result, train, wait

READERS = MemoryReader([draw(i, bar=i % 4 == 0) for i in range(8)]), MemoryReader([draw(100 + i) for i in range(3)])
OPTIONS = {"batch_norm": False}
PLAN = {"steps": 24, "val_every": 8, "augment": "light", "learning_rate": 1e-2}


def start(folder: Path, plan, ranks: int) -> list[int]:
    """The process ids of a training's processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def work(rank: int):
        def run() -> None:
            torch.set_num_threads(1)
            if ranks > 1:
                os.environ.update(
                    TORCHELASTIC_RUN_ID="test", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
                    WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks), GROUP_RANK="0",
                )  # fmt: skip
            train(folder, plan, READERS)

        return run

    return [forked(work(rank), folder.with_suffix(f".{rank}.log")) for rank in range(ranks)]


def finish(folder: Path, children: list[int]) -> None:
    codes = [wait(child) for child in children]
    if any(codes):
        sys.exit(f"{codes}\n" + "\n".join(path.read_text() for path in folder.parent.glob(f"{folder.name}*.log")))


def compare(folder: Path, name: str, **recipe) -> dict:
    """How far the curves and weights of two processes lie from those of one."""
    plan, one, two = tiny_plan(OPTIONS, **(PLAN | recipe)), folder / f"{name}-one", folder / f"{name}-two"
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


def interrupt_one(folder: Path) -> dict:
    """Ctrl-C reaches the second process alone: both stop after the same step, and go on to the bytes of an undisturbed run."""
    plan = tiny_plan(OPTIONS, steps=150, val_every=50, augment="off", batch=4)
    whole, halted = folder / "whole", folder / "halted"
    finish(whole, start(whole, plan, 2))
    children = start(halted, plan, 2)
    time.sleep(1.0)
    os.kill(children[1], signal.SIGINT)
    codes, step = [wait(child) for child in children], newest(halted / "checkpoints")
    finish(halted, start(halted, plan, 2))
    return {"codes": codes, "step": step, "same": result(whole) == result(halted)}


def main(folder: Path) -> None:
    default = {"loss": {"cross_entropy": 1.0, "dice": 0.5}, "class_weights": [1.0, 2.0, 3.0]}
    report = {
        "default": compare(folder, "default", **default, batch=4),
        "uneven": compare(folder, "uneven", **default, batch=5, accumulate=1),
        "interrupted": interrupt_one(folder),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

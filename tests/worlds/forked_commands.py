"""A process that has imported torch and trains in forks of itself, so that a killed training does not cost a start of Python.

``python -m tests.worlds.forked_commands FOLDER KILLS SEED`` trains once without interruption and then `KILLS` times with one kill (SIGKILL)
at a random moment: shortly after a random step or, every second time, while the next checkpoint is being written.
Moments are counted in steps, not in seconds, which vary on a busy machine. Prints a line of JSON for each kill: the step from which the
training continued, and whether its files are those of the uninterrupted run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import albumentations
import dvc.repo
import dvclive
import lightning_fabric
import safetensors.torch
import scmrepo.git
import torch
import torch._dynamo
import torchmetrics

from segpipe.files import sha256_file
from segpipe.training.distributed.process_group import leave_process_group
from segpipe.training.plan import FirstCrops
from segpipe.training.train import train_on
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draw
from tests.worlds.trainings import tiny_plan

IMPORTED = (
    albumentations,
    dvc.repo,
    dvclive,
    lightning_fabric,
    safetensors.torch,
    scmrepo.git,
    torch._dynamo,
    torchmetrics,
)
"""Modules that a training imports late, so that its forks have them."""
STEPS = 90
EVERY = 3
"""Steps between two checkpoints."""


def train(folder: Path, plan, readers) -> None:
    train_on(plan, CLASSES, *readers, folder / "out", folder / "live", folder / "checkpoints")
    leave_process_group()


def forked(work: Callable[[], None], log: Path) -> int:
    """Do the work in a fork, with its output in a file. Returns the process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        work()
        code = 0
    except Exception:  # noqa: BLE001  # the parent sees the code, and the log
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(folder: Path) -> list[str]:
    return [sha256_file(path) for path in sorted((folder / "out").iterdir())]


def kill_after(child: int, checkpoints: Path, step: int, delay: float, writing: bool) -> int:
    """Kill a fork `delay` seconds after its checkpoint of `step` or a later one and, if `writing`, while it writes the next one.

    Returns the exit code: -9, or 0 if it ended before.
    """
    step_reached = (lambda: newest(checkpoints) >= step), delay
    partly_written = (lambda: not writing or any(checkpoints.glob(".*"))), 0.0
    for ready, pause in (step_reached, partly_written):
        while not ready():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.0002)
        time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    return wait(child)


def newest(checkpoints: Path) -> int:
    return max((int(path.stem) for path in checkpoints.glob("[0-9]*")), default=0)


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    first = FirstCrops(steps=STEPS // 2, edges=(16, 16), shrink=2)
    plan = tiny_plan({"dropout": 0.1}, steps=STEPS, val_every=7, checkpoint_every=EVERY, first=first)
    readers = MemoryReader([draw(i, bar=i % 4 == 0) for i in range(8)]), MemoryReader([draw(100)])
    moments = random.Random(seed)

    def work(name: str) -> Callable[[], None]:
        return lambda: train(folder / name, plan, readers)

    started = time.monotonic()
    if wait(forked(work("whole"), folder / "whole.log")):
        sys.exit((folder / "whole.log").read_text())
    seconds, whole = time.monotonic() - started, result(folder / "whole")
    for number in range(kills):
        name = f"killed{number}"
        checkpoints = folder / name / "checkpoints"
        step, delay = moments.randrange(STEPS - 4 * EVERY), moments.uniform(0, EVERY) * seconds / STEPS
        child = forked(work(name), folder / f"{name}.log")
        ended = kill_after(child, checkpoints, step, delay, writing=number % 2 == 1)
        half_written, last_step = len(list(checkpoints.glob(".*"))), newest(checkpoints)
        if ended == -signal.SIGKILL and wait(forked(work(name), folder / f"{name}.log")):
            sys.exit((folder / f"{name}.log").read_text())
        same = result(folder / name) == whole
        print(json.dumps({"ended": ended, "step": last_step, "half_written": half_written, "same": same}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Starting the processes that share a training, where the plan asks for several and nobody has started them yet."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from segpipe.errors import ConfigError, MissingError, SegpipeError
from segpipe.progress import say
from segpipe.training.distributed.process_group import started_by_torchrun
from segpipe.training.memory import PARTS_FILE

if TYPE_CHECKING:
    from segpipe.training.plan import Plan

T = TypeVar("T")


def launch(plan: Plan, arguments: list[str], checkpoints: Path) -> bool:
    """Run ``python -m segpipe ARGUMENTS`` in one process a device and wait for them; False where this process is to do the work.

    It is what ``torchrun --standalone`` does: one that fails ends all, a signal reaches all. Where one ran out of memory, which it notes
    in the folder of the training's checkpoints, all are started again. Raises ConfigError where the plan asks
    for several machines (then torchrun has to be started on each), MissingError where there are not enough GPUs, SystemExit with
    the code of the process that failed first, KeyboardInterrupt.
    """
    if plan.execution is None or started_by_torchrun():
        return False
    devices, nodes = plan.execution.devices, plan.execution.nodes
    if nodes > 1:
        raise ConfigError(
            f"the plan trains on {nodes} machines, and one can't start the others",
            where="train.num_nodes",
            fix=f"on each of them: torchrun --nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:29400 "
            f"-m segpipe {' '.join(arguments)}",
        )
    if devices == 1:
        return False
    machine = plan.execution.machine
    if machine.device == "cuda" and torch.cuda.device_count() < devices:
        raise MissingError(
            "the plan trains on more GPUs than there are here",
            where="train.devices",
            found=torch.cuda.device_count(),
            expected=devices,
            fix=f"set it to what there is; segpipe plan {plan.candidate} --refresh",
        )
    while True:
        before = _notes(checkpoints)
        try:
            _run_and_wait(devices, ["-m", "segpipe", *arguments], threads=max(1, machine.threads // devices))
            return True
        except SystemExit:
            if _notes(checkpoints) == before:
                raise
            say(f"{plan.candidate}: its processes start again from the last checkpoint, with each batch in more parts")


def _notes(checkpoints: Path) -> dict[Path, bytes]:
    """What is known of how much fits, of all networks of a training."""
    return {path: path.read_bytes() for path in checkpoints.rglob(PARTS_FILE)}


def run_in_processes(processes: int, threads: int, work: Callable[..., T], *arguments: Any) -> dict[int, T]:
    """What ``work(*arguments)`` returns in each of several processes that can share a training, by rank. Raises SegpipeError."""
    try:
        found: dict[int, T] = _run_and_wait(processes, arguments, threads, work)
    except SystemExit as end:
        raise SegpipeError(
            f"the processes that are to share the training can't run side by side: {end.__cause__}",
            where="train.devices",
            found=processes,
            fix="set it to 1, or to what this machine has memory for",
        ) from end
    return found


def _run_and_wait(processes: int, arguments: Sequence[Any], threads: int, work: Any = sys.executable) -> Any:
    """What each of the processes returns, by rank. work: a program, or a function that can be imported."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    given = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=f"segpipe-{os.getpid()}",
        max_restarts=0,
        monitor_interval=0.1,
    )
    logging.disable(logging.ERROR)  # each process says itself what failed
    try:
        return elastic_launch(config, work)(*arguments)
    except SignalException as signal:
        raise KeyboardInterrupt from signal
    except ChildFailedError as error:
        failure = error.get_first_failure()[1]
        said: Any = failure.message  # with its traceback, where the process left it
        raise SystemExit(failure.exitcode) from RuntimeError(said["message"] if isinstance(said, dict) else said)
    finally:
        logging.disable(logging.NOTSET)
        if given is None:
            del os.environ["OMP_NUM_THREADS"]

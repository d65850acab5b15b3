"""Starting the processes that share a training, if the plan asks for several and nothing has started them yet."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from segpipe.errors import ConfigError, MissingError, SegpipeError
from segpipe.progress import say
from segpipe.training.distributed.process_group import started_by_torchrun
from segpipe.training.memory import PARTS_FILE
from segpipe.training.plan import NetworkPlan, Plan

T = TypeVar("T")


def launch(plan: Plan, arguments: list[str], checkpoints: Path) -> bool:
    """Run ``python -m segpipe ARGUMENTS`` in one process per device, and wait for all of them.

    It does what ``torchrun --standalone`` does: a process that fails ends all, and a signal reaches all. If a process ran out of
    memory, which it records in the folder of checkpoints, all are started again.

    Args:
        plan: the plan of the training.
        arguments: the command that each process runs.
        checkpoints: the folder of the training's checkpoints.

    Returns:
        True if the work is done; False if this process is to do it.

    Raises:
        ConfigError: The plan asks for several machines, and torchrun has to be started on each.
        MissingError: There are not enough GPUs.
        SystemExit: A process failed; with the code of the first that did.
        KeyboardInterrupt: The user stopped it.
    """
    if not isinstance(plan, NetworkPlan) or started_by_torchrun():
        return False
    devices, nodes = plan.execution.devices, plan.execution.nodes
    if nodes > 1:
        raise ConfigError(
            f"the plan trains on {nodes} machines, and one cannot start the others",
            where="train.num_nodes",
            fix=f"on each of them: torchrun --nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:29400 "
            f"-m segpipe {' '.join(arguments)}",
        )
    if devices == 1:
        return False
    machine = plan.execution.machine
    if machine.device == "cuda" and torch.cuda.device_count() < devices:
        raise MissingError(
            "the plan trains on more GPUs than this machine has",
            where="train.devices",
            found=torch.cuda.device_count(),
            expected=devices,
            fix=f"set it to at most the number of GPUs here, then segpipe plan {plan.candidate} --refresh",
        )
    while True:
        before = _parts_files(checkpoints)
        try:
            _run_and_wait(devices, ["-m", "segpipe", *arguments], threads=max(1, machine.threads // devices))
            return True
        except SystemExit:
            if _parts_files(checkpoints) == before:
                raise
            say(f"{plan.candidate}: its processes start again from the last checkpoint, with each batch in more parts")


def _parts_files(checkpoints: Path) -> dict[Path, bytes]:
    """Return the records of how many parts a batch needs, of all networks of a training."""
    return {path: path.read_bytes() for path in checkpoints.rglob(PARTS_FILE)}


def run_in_processes(processes: int, threads: int, work: Callable[..., T], *arguments: Any) -> dict[int, T]:
    """Call a function in each of several processes that can share a training.

    Args:
        processes: the number of processes.
        threads: threads of each.
        work: a function that can be imported.
        arguments: its arguments.

    Returns:
        The result of each process, by rank.

    Raises:
        SegpipeError: A process failed.
    """
    try:
        results: dict[int, T] = _run_and_wait(processes, arguments, threads, work)
    except SystemExit as end:
        raise SegpipeError(
            f"the processes that share the training cannot run at the same time: {end.__cause__}",
            where="train.devices",
            found=processes,
            fix="set it to 1, or to a number for which this machine has enough memory",
        ) from end
    return results


def _run_and_wait(processes: int, arguments: Sequence[Any], threads: int, work: Any = sys.executable) -> Any:
    """Return the result of each process, by rank. work: a program, or a function that can be imported."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    threads_before = os.environ.get("OMP_NUM_THREADS")
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
    logging.disable(logging.ERROR)  # each process reports its own failure
    try:
        return elastic_launch(config, work)(*arguments)
    except SignalException as signal:
        raise KeyboardInterrupt from signal
    except ChildFailedError as error:
        failure = error.get_first_failure()[1]
        message: Any = failure.message  # a dict with the traceback, if the process left one
        text = message["message"] if isinstance(message, dict) else message
        raise SystemExit(failure.exitcode) from RuntimeError(text)
    finally:
        logging.disable(logging.NOTSET)
        if threads_before is None:
            del os.environ["OMP_NUM_THREADS"]

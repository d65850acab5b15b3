"""Run the stages that are out of date, each as soon as the stages that it reads from are done."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from segpipe.errors import SegpipeError
from segpipe.workspace import pipeline
from segpipe.workspace.devices import gpus
from segpipe.workspace.execution.events import Listener, StageEnded, StageLine, StageSkipped, StageStarted
from segpipe.workspace.execution.runner import StageRun, run_stage
from segpipe.workspace.pipeline import Stage


class StageFailed(SegpipeError):
    """A stage ended with an error. Has the error line and the exit code of the stage."""

    def __init__(self, run: StageRun) -> None:
        super().__init__(run.error or f"stage {run.name} failed")
        self.exit_code = run.code


def device_slots(jobs: int | None) -> list[str]:
    """Return one slot per `device` stage that may run at once: the number of its GPU, or "" for the processors.

    Args:
        jobs: the number of slots; None: one per GPU, or a single one if there is no GPU.
    """
    devices = gpus() or [""]
    return devices if jobs is None else [devices[i % len(devices)] for i in range(jobs)]


def max_parallel(jobs: int | None) -> int:
    """Return the largest number of stages that run at once."""
    return jobs or os.cpu_count() or 1


def ready_stages(stages: Mapping[str, Stage], done: Mapping[str, Any], running: Mapping[str, Any]) -> list[Stage]:
    """Return the stages that have not started and whose upstream stages are done."""
    waiting = [stage for name, stage in stages.items() if name not in done and name not in running]
    return [stage for stage in waiting if all(name in done for name in stage.upstream if name in stages)]


def run_stages(
    root: Path, stages: Mapping[str, Stage], jobs: int | None, listener: Listener, stop: threading.Event
) -> dict[str, StageRun | None]:
    """Run the stages that are out of date, each as soon as its upstream stages are done.

    A stage is checked only then: it stays up to date if an upstream stage ran again but wrote the same bytes.

    Args:
        root: the workspace.
        stages: the graph, each stage after those that it reads from.
        jobs: largest number of stages at once; None: one `device` stage per GPU, and as many others as processors.
        listener: is called with each event.
        stop: an event that ends the run: running stages are stopped, and no other starts.

    Returns:
        The run of each stage, None for a stage that was up to date.

    Raises:
        StageFailed: a stage failed, and the others were stopped; or `stop` was set.
    """
    slots = device_slots(jobs)
    done: dict[str, StageRun | None] = {}
    running: dict[str, tuple[Future[StageRun], str | None]] = {}  # with the device slot that the stage uses
    with ThreadPoolExecutor(max_workers=max_parallel(jobs)) as pool:
        try:
            while len(done) < len(stages):
                for stage in ready_stages(stages, done, running):
                    if len(running) >= max_parallel(jobs) or (stage.resource == "device" and not slots):
                        continue
                    if stop.is_set():
                        raise StageFailed(StageRun(stage.name, 130, 0.0, f"{stage.name}: stopped before it started"))
                    if not pipeline.is_stale(root, stage.name):
                        done[stage.name] = None
                        listener(StageSkipped(stage.name))
                        break  # other stages may be ready now
                    slot = slots.pop(0) if stage.resource == "device" else None
                    listener(StageStarted(stage.name))
                    running[stage.name] = pool.submit(_run, root, stage.name, slot, listener, stop), slot
                else:
                    wait([future for future, _ in running.values()], return_when=FIRST_COMPLETED)
                    for name in [name for name, (future, _) in running.items() if future.done()]:
                        future, slot = running.pop(name)
                        if slot is not None:
                            slots.append(slot)
                        done[name] = future.result()
                        if not future.result().ok:
                            raise StageFailed(future.result())
        finally:
            stop.set()  # leaving the block waits for the stages that still run
    return {name: done[name] for name in stages}


def _run(root: Path, name: str, slot: str | None, listener: Listener, stop: threading.Event) -> StageRun:
    """Run one stage and report it to the listener."""
    environment = {"CUDA_VISIBLE_DEVICES": slot} if slot else {}
    try:
        run = run_stage(root, name, lambda line: listener(StageLine(name, line)), stop=stop, environment=environment)
    except BaseException as error:
        listener(StageEnded(StageRun(name, 1, 0.0, f"{name}: {error!r}")))
        raise
    listener(StageEnded(run))
    return run

"""The real loop, timed while a training is planned: as one process runs it, and as several do that share the batch."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from segpipe.training.distributed.process_group import any_rank, leave_process_group, rank
from segpipe.training.launch import run_in_processes
from segpipe.training.loop import build_stepper
from segpipe.training.machine import synchronize
from segpipe.training.memory import free_unused_memory
from segpipe.training.plan import Execution, Plan
from segpipe.training.sampling.crops import Reader, Samples, batches
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import cpu_ms

if TYPE_CHECKING:
    from segpipe.training.step import Stepper


_MATTERS = 0.05
"""Of a step: where preparing its batch takes a processor less, other counts of workers are not tried."""
_CLEARLY = 0.93
"""Of the likeliest's time: two turns of one loop differ by some percent on a machine that others share."""


@dataclass(frozen=True)
class LoopBenchmark:
    """The real loop, as one of `ranks` processes runs it, for so many seconds."""

    workers: int
    seed: int
    ranks: int
    seconds: float

    def time(self, stepper: Stepper, crops: Samples) -> float:
        """Milliseconds a step, batches included: the mean, because that is what adds up to a budget."""
        device = stepper.fabric.device.type
        stream = batches(
            crops, stepper.recipe, self.workers, 0, 500, rank=rank(), ranks=self.ranks, pin=device == "cuda"
        )
        for number in range(2):
            stepper.step(number, *next(stream), self.seed)
        synchronize(device)
        count, began = 0, time.perf_counter()
        while count < 3 or (count < 400 and not any_rank(time.perf_counter() - began > self.seconds)):
            stepper.step(2 + count, *next(stream), self.seed)
            count += 1
            if device == "cuda" and count % 10 == 0:
                synchronize("cuda")
        synchronize(device)
        return (time.perf_counter() - began) * 1000 / count


def choose_workers(
    counts: list[int], loop: LoopBenchmark, stepper: Stepper, crops: Samples, ms_step: float
) -> dict[int, float]:
    """Milliseconds a step of the loop by how many processes prepare its batches; the first is the one to take.

    counts: that might be, the likeliest first. The others are tried where preparing a batch takes a processor so long that they could
    matter, and are taken where they are clearly faster: the crops are the same whoever prepares them. ms_step: about what a step takes.
    The time of the loop is shared between those that are tried.
    """
    images = range(0, stepper.recipe.batch, loop.ranks)
    if cpu_ms(crops, images) < _MATTERS * ms_step:
        counts = counts[:1]
    loops = [replace(loop, workers=count, seconds=loop.seconds / len(counts)) for count in counts]
    found = {each.workers: each.time(stepper, crops) for each in loops}
    likeliest, fastest = counts[0], min(found, key=lambda count: found[count])
    best = fastest if found[fastest] < _CLEARLY * found[likeliest] else likeliest
    return {best: found[best]} | found


def exchange_ms(plan: Plan, train: Reader, loop: LoopBenchmark, alone: float) -> float:
    """What a step takes beyond `alone` (milliseconds) where the processes of this machine run it side by side: telling each other of
    gradients and statistics, and sharing processors and memory. On several machines, what goes between them is not in it.

    Raises SegpipeError where a process fails. 0 where there are fewer GPUs than processes: the training will run elsewhere.
    """
    assert plan.execution is not None
    devices, machine = plan.execution.devices, plan.execution.machine
    if machine.device == "cuda" and torch.cuda.device_count() < devices:
        return 0.0
    free_unused_memory()
    threads = max(1, machine.threads // devices)
    found: dict[int, Any] = run_in_processes(devices, threads, _time_a_share, plan.model_dump_json(), train, loop)
    return max(0.0, max(found.values()) - alone)


def with_exchange(execution: Execution, ms: float) -> Execution:
    """With so many milliseconds more a step."""
    parts = execution.step_ms | {"exchange": round(ms, 2)}
    return execution.model_copy(update={"ms_per_step": round(execution.ms_per_step + ms, 1), "step_ms": parts})


@record
def _time_a_share(plan: str, train: Reader, loop: LoopBenchmark) -> float:
    """Milliseconds a step, in each of the processes."""
    multiprocessing.set_start_method(None, force=True)  # the platform's; being spawned must not make the loader spawn
    planned = Plan.model_validate_json(plan)
    found = loop.time(build_stepper(planned), samples_of(train, planned))
    leave_process_group()
    return found

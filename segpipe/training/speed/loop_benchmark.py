"""The benchmark of the real training loop: in one process, and in several processes that share each batch."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from segpipe.training.distributed.process_group import any_rank, leave_process_group, rank
from segpipe.training.launch import run_in_processes
from segpipe.training.machine import synchronize
from segpipe.training.memory import free_unused_memory
from segpipe.training.plan import Execution, NetworkPlan
from segpipe.training.sampling.crops import Reader, Samples, batches
from segpipe.training.step import build_stepper
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import cpu_ms

if TYPE_CHECKING:
    from segpipe.training.step import Stepper

_MIN_PREPARATION_SHARE = 0.05
"""If preparing its batch takes less than this share of a step, other numbers of workers are not tried."""
_MAX_TIME_RATIO = 0.93
"""Another number of workers must take less than this share of the default's time: two runs differ by some percent on a shared machine."""
_MAX_STEPS = 400
_STREAM_STEPS = 500


@dataclass(frozen=True)
class LoopTimes:
    """The result of a run of the loop."""

    ms_per_step: float
    ms_waiting: float
    """The part of `ms_per_step` in which the next batch was prepared or awaited."""
    is_finite: bool
    """Whether all losses were finite."""


@dataclass(frozen=True)
class LoopBenchmark:
    """The real training loop, run for some seconds as one of the processes that share each batch."""

    workers: int
    """Processes that prepare batches."""
    seed: int
    world_size: int
    """Processes that share each batch."""
    seconds: float
    warmup_steps: int = 2
    """First steps that prepare kernels and are not counted."""
    min_steps: int = 3
    """Steps that are counted at least, however long they take."""

    def time(self, stepper: Stepper, crops: Samples) -> float:
        """Return the mean milliseconds per step, including batches; the mean, because a budget pays for the sum."""
        return self.run(stepper, crops).ms_per_step

    def run(self, stepper: Stepper, crops: Samples) -> LoopTimes:
        """Run the loop.

        Args:
            stepper: the network to train.
            crops: the training samples.
        """
        device = stepper.fabric.device.type
        stream = batches(
            crops,
            stepper.recipe,
            self.workers,
            0,
            _STREAM_STEPS,
            rank=rank(),
            world_size=self.world_size,
            pin=device == "cuda",
        )
        for number in range(self.warmup_steps):
            stepper.step(number, *next(stream), self.seed)
        synchronize(device)
        steps, waiting_s, losses, started = 0, 0.0, [], time.perf_counter()
        while steps < self.min_steps or (
            steps < _MAX_STEPS and not any_rank(time.perf_counter() - started > self.seconds)
        ):
            wait_started = time.perf_counter()
            batch = next(stream)
            waiting_s += time.perf_counter() - wait_started
            losses.append(stepper.step(self.warmup_steps + steps, *batch, self.seed))
            steps += 1
            if device == "cuda" and steps % 10 == 0:
                synchronize("cuda")
        synchronize(device)
        total_s = time.perf_counter() - started
        return LoopTimes(
            total_s * 1000 / steps, waiting_s * 1000 / steps, bool(torch.isfinite(torch.stack(losses)).all())
        )


def choose_workers(
    counts: list[int], loop: LoopBenchmark, stepper: Stepper, crops: Samples, ms_step: float
) -> dict[int, float]:
    """Time the loop with different numbers of worker processes.

    Counts other than the first are tried if preparing a batch takes long enough to matter, and are chosen if they are clearly
    faster. The crops are the same whichever process prepares them.

    Args:
        counts: the numbers of workers to consider, the most promising first.
        loop: the benchmark; its time is shared between the counts that are tried.
        stepper: the network to train.
        crops: the training samples.
        ms_step: about how many milliseconds a step takes.

    Returns:
        Milliseconds per step by number of workers; the first is the one to use.
    """
    positions = range(0, stepper.recipe.batch, loop.world_size)
    if cpu_ms(crops, positions) < _MIN_PREPARATION_SHARE * ms_step:
        counts = counts[:1]
    loops = [replace(loop, workers=count, seconds=loop.seconds / len(counts)) for count in counts]
    ms_by_count = {each.workers: each.time(stepper, crops) for each in loops}
    default, fastest = counts[0], min(ms_by_count, key=lambda count: ms_by_count[count])
    best = fastest if ms_by_count[fastest] < _MAX_TIME_RATIO * ms_by_count[default] else default
    return {best: ms_by_count[best]} | ms_by_count


def exchange_ms(plan: NetworkPlan, train: Reader, loop: LoopBenchmark, alone_ms: float) -> float:
    """Measure how much longer a step takes if all processes of this machine train at the same time.

    They exchange gradients and statistics, and share the CPU and memory. The exchange between several machines is not included.

    Args:
        plan: the plan, with the number of processes.
        train: the training split.
        loop: the benchmark.
        alone_ms: milliseconds per step of one process alone.

    Returns:
        Milliseconds per step; 0 if this machine has fewer GPUs than processes, because the training will then run elsewhere.

    Raises:
        SegpipeError: A process failed.
    """
    devices, machine = plan.execution.devices, plan.execution.machine
    if machine.device == "cuda" and torch.cuda.device_count() < devices:
        return 0.0
    free_unused_memory()
    threads = max(1, machine.threads // devices)
    work: Any = _time_one_process  # `record` adds None to the type of its result
    ms_by_rank: dict[int, float] = run_in_processes(devices, threads, work, plan.model_dump_json(), train, loop)
    return max(0.0, max(ms_by_rank.values()) - alone_ms)


def with_exchange(execution: Execution, ms: float) -> Execution:
    """Return the execution with these milliseconds per step added as the part `exchange`."""
    parts = execution.step_ms | {"exchange": round(ms, 2)}
    return execution.model_copy(update={"ms_per_step": round(execution.ms_per_step + ms, 1), "step_ms": parts})


@record
def _time_one_process(plan_json: str, train: Reader, loop: LoopBenchmark) -> float:
    """Return the milliseconds per step of this process."""
    # Back to the platform's method: this process was spawned, but its data loader must not spawn.
    multiprocessing.set_start_method(None, force=True)
    plan = NetworkPlan.model_validate_json(plan_json)
    ms = loop.time(build_stepper(plan), samples_of(train, plan))
    leave_process_group()
    return ms

"""Where the time of a training goes: its parts, measured by running the same steps again and again on one batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from segpipe.training.machine import synchronize
from segpipe.training.sampling.batch_parts import split_batch

if TYPE_CHECKING:
    from segpipe.training.sampling.crops import Samples
    from segpipe.training.step import Stepper

BOTTLENECK_FILE = "bottleneck.json"
_TIMES = 3
SLOW_STEP_MS = 500.0
"""A step that takes longer is timed once: what disturbs the clock is little beside it."""


def step_parts(
    stepper: Stepper, images: Tensor, known: Any, seed: int, plain: Samples, full: Samples, ms_loop: float
) -> dict[str, float]:
    """Milliseconds a step by part; together `ms_loop`, what a step of the real loop takes, its batch included.

    images, known: a batch. plain, full: the training samples without and with augmentation. What the loop takes beyond the same
    steps on one batch is the loader's and the augmentation's, by how long each takes for a batch: processes that prepare
    batches hold up the steps by being late, or by taking their processors.
    """
    device = stepper.fabric.device
    forward = backward = step = float("inf")
    resident = images.to(device).contiguous(memory_format=stepper.format)
    part, its_known, _ = next(iter(split_batch(resident, known, stepper.accumulate)))
    for number in range(1 if ms_loop > SLOW_STEP_MS else _TIMES):
        began = _now(device.type)
        loss = stepper.objective(stepper.model, (part, its_known), device)
        middle = _now(device.type)
        stepper.fabric.backward(loss)
        end = _now(device.type)
        stepper.optimizer.zero_grad(set_to_none=True)
        forward, backward = min(forward, middle - began), min(backward, end - middle)
        began = _now(device.type)
        stepper.step(number, images, known, seed)
        step = min(step, _now(device.type) - began)
    step = min(step, ms_loop)
    forward, backward = forward * stepper.accumulate, backward * stepper.accumulate
    parts = {"forward": forward, "backward": backward, "optimiser": max(0.0, step - forward - backward)}
    parts = {name: ms * step / sum(parts.values()) for name, ms in parts.items()}
    positions = range(len(images))
    reading, all_of_it = (cpu_ms(samples, positions) for samples in (plain, full))
    read = min(1.0, reading / max(all_of_it, 1e-9))
    beyond = ms_loop - step
    return {"loader": beyond * read, "augmentation": beyond * (1 - read)} | parts


def _now(device: str) -> float:
    """Milliseconds, when the device has done what it was given."""
    synchronize(device)
    return time.perf_counter() * 1000


def cpu_ms(samples: Samples, positions: range) -> float:
    """Milliseconds of a processor for these samples: the least of several times."""
    least = float("inf")
    for _ in range(_TIMES):
        began = time.process_time()
        for position in positions:
            samples[position]
        least = min(least, time.process_time() - began)
    return least * 1000


class TrainingClock:
    """How long a training took, and how much of it was not for steps."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within as the part's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def table(self, steps: int, step_ms: dict[str, float]) -> list[dict[str, float | str]]:
        """Rows of bottleneck.json: part, its share of the time since the clock was made (0..1), and milliseconds a step.

        The time of the steps is split as the plan measured it (`step_parts`).
        """
        total = max(time.perf_counter() - self._began, 1e-9)
        left, planned = total - sum(self.seconds.values()), sum(step_ms.values())
        parts = {name: ms / planned * left for name, ms in step_ms.items()} if planned else {"steps": left}
        return [
            {"part": name, "share": round(seconds / total, 4), "ms": round(seconds / max(steps, 1) * 1000, 2)}
            for name, seconds in (parts | self.seconds).items()
        ]

"""The time of a training, by part: the parts of a step are measured by repeating the same steps on one batch."""

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
_REPEATS = 3
SLOW_STEP_MS = 500.0
"""A step that takes longer is timed once: disturbances are small in comparison."""


def step_parts(
    stepper: Stepper, images: Tensor, labels: Any, seed: int, plain: Samples, full: Samples, ms_loop: float
) -> dict[str, float]:
    """Measure the parts of a step.

    The time that the loop takes beyond the same steps on one batch is attributed to loader and augmentation, in proportion to how long
    each takes for a batch: processes that prepare batches delay steps by being late, or by taking CPU time.

    Args:
        stepper: the network in training.
        images: (N, C, ...) float32, a batch.
        labels: its labels.
        seed: the seed of the training.
        plain: the training samples without augmentation.
        full: the training samples with augmentation.
        ms_loop: milliseconds per step of the real loop, including batches.

    Returns:
        Milliseconds per step of loader, augmentation, forward, backward and optimiser; their sum is `ms_loop`.
    """
    device = stepper.fabric.device
    forward = backward = step = float("inf")
    resident = images.to(device).contiguous(memory_format=stepper.format)
    part, part_labels, _ = next(iter(split_batch(resident, labels, stepper.accumulate)))
    for number in range(1 if ms_loop > SLOW_STEP_MS else _REPEATS):
        start = _now_ms(device.type)
        loss = stepper.objective(stepper.model, (part, part_labels), device)
        middle = _now_ms(device.type)
        stepper.fabric.backward(loss)
        end = _now_ms(device.type)
        stepper.optimizer.zero_grad(set_to_none=True)
        forward, backward = min(forward, middle - start), min(backward, end - middle)
        start = _now_ms(device.type)
        stepper.step(number, images, labels, seed)
        step = min(step, _now_ms(device.type) - start)
    step = min(step, ms_loop)
    forward, backward = forward * stepper.accumulate, backward * stepper.accumulate
    parts = {"forward": forward, "backward": backward, "optimiser": max(0.0, step - forward - backward)}
    parts = {name: ms * step / sum(parts.values()) for name, ms in parts.items()}
    positions = range(len(images))
    plain_ms, full_ms = (cpu_ms(samples, positions) for samples in (plain, full))
    loader_share = min(1.0, plain_ms / max(full_ms, 1e-9))
    batches_ms = ms_loop - step
    return {"loader": batches_ms * loader_share, "augmentation": batches_ms * (1 - loader_share)} | parts


def _now_ms(device: str) -> float:
    """Return the time in milliseconds, after the device has finished its work."""
    synchronize(device)
    return time.perf_counter() * 1000


def cpu_ms(samples: Samples, positions: range) -> float:
    """Return the milliseconds of CPU time that these samples take: the minimum of several runs.

    Args:
        samples: the training samples.
        positions: which of them.
    """
    least = float("inf")
    for _ in range(_REPEATS):
        start = time.process_time()
        for position in positions:
            samples[position]
        least = min(least, time.process_time() - start)
    return least * 1000


class TrainingClock:
    """Measures how long a training takes, and how much of that is not for steps."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within this context as that of a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def table(self, steps: int, step_ms: dict[str, float]) -> list[dict[str, float | str]]:
        """Return the rows of bottleneck.json.

        Args:
            steps: the number of steps taken since the clock was created.
            step_ms: the parts of a step as the plan measured them (`step_parts`); the time of the steps is divided in proportion.

        Returns:
            For each part its name, its share of the time (0..1) and its milliseconds per step.
        """
        total = max(time.perf_counter() - self._start, 1e-9)
        steps_s, planned_ms = total - sum(self.seconds.values()), sum(step_ms.values())
        parts = {name: ms / planned_ms * steps_s for name, ms in step_ms.items()} if planned_ms else {"steps": steps_s}
        return [
            {"part": name, "share": round(seconds / total, 4), "ms": round(seconds / max(steps, 1) * 1000, 2)}
            for name, seconds in (parts | self.seconds).items()
        ]

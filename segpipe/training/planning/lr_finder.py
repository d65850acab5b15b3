"""Learning-rate range test: a short training in which the rate rises exponentially (Smith 2017, arXiv:1506.01186)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.training.sampling.crops import Samples, batches
from segpipe.training.step import Stepper

MAX_STEPS, MIN_STEPS = 60, 20
MAX_BUDGET_SHARE = 0.05
"""Share of a budget that the test may take."""
_SWEEP_FACTOR = 100.0
"""The sweep goes from the rule of thumb divided by this to the rule of thumb times this."""
_MAX_FACTOR = 10.0
"""The chosen rate lies within this factor of the rule of thumb."""
_DIVERGED_RATIO = 3.0
"""The sweep ends once the loss is this many times the first loss."""


@dataclass(frozen=True)
class RangeTest:
    """The result of a range test."""

    rate: float
    steps: int
    words: str
    """The rate and the reason for it."""


def find_learning_rate(
    stepper: Stepper, crops: Samples, workers: int, seed: int, seconds: float, ms_step: float
) -> RangeTest:
    """Run the range test that a budget allows. It trains the stepper's network, which cannot be used afterwards.

    Args:
        stepper: a network whose recipe has the rule of thumb as its learning rate.
        crops: the training samples.
        workers: processes that prepare batches.
        seed: the seed of the training.
        seconds: the budget.
        ms_step: milliseconds per step.

    Returns:
        The chosen rate; the rule of thumb if the budget is too short.
    """
    rule, steps = stepper.recipe.learning_rate, min(MAX_STEPS, int(MAX_BUDGET_SHARE * seconds * 1000 / ms_step))
    if steps < MIN_STEPS:
        return RangeTest(rule, 0, f"{rule:g}: the budget is too short for a range test, so the rule of thumb is used")
    return sweep_learning_rates(stepper, batches(crops, stepper.recipe, workers, 0, steps), rule, steps, seed)


def sweep_learning_rates(
    stepper: Stepper, stream: Iterator[tuple[Any, Any]], rule: float, steps: int, seed: int
) -> RangeTest:
    """Train on real batches with rates from rule / 100 to rule * 100, and choose one.

    Args:
        stepper: the network to train; it cannot be used afterwards.
        stream: the batches.
        rule: the learning rate by the rule of thumb.
        steps: the number of rates.
        seed: the seed of the training.
    """
    rates = np.geomspace(rule / _SWEEP_FACTOR, rule * _SWEEP_FACTOR, steps)
    losses: list[float] = []
    for number, rate in enumerate(rates):
        stepper.recipe = stepper.recipe.model_copy(
            update={"learning_rate": float(rate), "schedule": "constant", "warmup_steps": 0}
        )
        loss = float(stepper.step(number, *next(stream), seed))
        if not math.isfinite(loss) or (losses and loss > _DIVERGED_RATIO * losses[0]):
            break
        losses.append(loss)
    return choose_learning_rate(rates[: len(losses)], np.array(losses), rule)


def choose_learning_rate(rates: np.ndarray, losses: np.ndarray, rule: float) -> RangeTest:
    """Choose the rate at which the smoothed loss falls most per factor of the rate, within a factor of ten of the rule of thumb.

    Args:
        rates: (n,), rising, of the steps before the loss diverged.
        losses: (n,), their losses.
        rule: the learning rate by the rule of thumb; it is used if the loss falls nowhere.
    """
    from scipy.ndimage import gaussian_filter1d

    if len(rates) < MIN_STEPS // 2:
        return RangeTest(rule, len(rates), f"{rule:g}: the range test diverged at once, so the rule of thumb is used")
    smooth = gaussian_filter1d(losses, max(1.0, len(losses) / 20), mode="nearest")
    slope = np.gradient(smooth, np.log(rates))
    if slope.min() >= 0:
        return RangeTest(
            rule, len(rates), f"{rule:g}: no rate of the range test lowered the loss, so the rule of thumb is used"
        )
    steepest = float(rates[int(slope.argmin())])
    rate = float(f"{min(max(steepest, rule / _MAX_FACTOR), rule * _MAX_FACTOR):.2g}")
    limited = "" if rate == float(f"{steepest:.2g}") else f", and {_MAX_FACTOR:g} times is the bound"
    return RangeTest(
        rate,
        len(rates),
        f"{rate:g}: the loss falls fastest at {steepest:.2g} in a range test of {len(rates)} steps; the rule of thumb is "
        f"{rule:g}{limited}",
    )

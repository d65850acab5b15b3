"""A learning rate by measurement: a short training in which the rate rises exponentially (Smith 2017, arXiv:1506.01186)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.training.sampling.crops import Samples, batches
from segpipe.training.step import Stepper

MOST_STEPS, MIN_STEPS = 60, 20
SHARE = 0.05
"""Of the time that a budget gives: what the test may take."""
_REACH = 100.0
"""The sweep goes from the rule of thumb divided by this to the rule times this."""
_BOUND = 10.0
"""As far as this factor may the choice lie from the rule."""
_DIVERGED = 3.0
"""The sweep ends where the loss is this many times the first one."""


@dataclass(frozen=True)
class RangeTest:
    """What a sweep found."""

    rate: float
    steps: int
    words: str


def find_learning_rate(
    stepper: Stepper, crops: Samples, workers: int, seed: int, seconds: float, ms_step: float
) -> RangeTest:
    """The range test that a budget of `seconds` allows; without one, the rule of thumb, which is the recipe's own rate.

    Spoils the stepper's network.
    """
    rule, steps = stepper.recipe.learning_rate, min(MOST_STEPS, int(SHARE * seconds * 1000 / ms_step))
    if steps < MIN_STEPS:
        return RangeTest(rule, 0, f"{rule:g}: the budget is too short for a range test, so the rule of thumb stands")
    return sweep_learning_rates(stepper, batches(crops, stepper.recipe, workers, 0, steps), rule, steps, seed)


def sweep_learning_rates(
    stepper: Stepper, stream: Iterator[tuple[Any, Any]], rule: float, steps: int, seed: int
) -> RangeTest:
    """Train `steps` steps on real batches with rates from rule / 100 to rule * 100, and choose. Spoils the stepper's network."""
    rates = np.geomspace(rule / _REACH, rule * _REACH, steps)
    losses: list[float] = []
    for number, rate in enumerate(rates):
        stepper.recipe = stepper.recipe.model_copy(
            update={"learning_rate": float(rate), "schedule": "constant", "warmup_steps": 0}
        )
        loss = float(stepper.step(number, *next(stream), seed))
        if not math.isfinite(loss) or (losses and loss > _DIVERGED * losses[0]):
            break
        losses.append(loss)
    return choose_learning_rate(rates[: len(losses)], np.array(losses), rule)


def choose_learning_rate(rates: np.ndarray, losses: np.ndarray, rule: float) -> RangeTest:
    """Where the smoothed loss falls most for a given factor of the rate; within a factor of ten of the rule.

    rates, losses: (n,), of the steps before the loss left all bounds. The rule itself where the loss falls nowhere.
    """
    from scipy.ndimage import gaussian_filter1d

    said = f"the rule of thumb says {rule:g}"
    if len(rates) < MIN_STEPS // 2:
        return RangeTest(rule, len(rates), f"{rule:g}: the range test diverged at once, so the rule of thumb stands")
    smooth = gaussian_filter1d(losses, max(1.0, len(losses) / 20), mode="nearest")
    slope = np.gradient(smooth, np.log(rates))
    if slope.min() >= 0:
        return RangeTest(
            rule, len(rates), f"{rule:g}: no rate of the range test brought the loss down, so the rule of thumb stands"
        )
    steepest = float(rates[int(slope.argmin())])
    rate = float(f"{min(max(steepest, rule / _BOUND), rule * _BOUND):.2g}")
    words = f"{rate:g}: the loss falls fastest at {steepest:.2g} in a range test of {len(rates)} steps; {said}"
    return RangeTest(
        rate, len(rates), words + ("" if rate == float(f"{steepest:.2g}") else f", and {_BOUND:g} times is the bound")
    )

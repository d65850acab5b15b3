"""The learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable

from segpipe.training.plan import Recipe

_POLY_POWER = 0.9
"""The exponent of DeepLab's polynomial."""
_RISE_SHARE = 0.3
"""Share of the steps in which one_cycle rises."""
_START, _END = 1 / 25, 1 / 250_000
"""Start and end of one_cycle, as shares of the peak."""


def warmup_steps(steps: int, schedule: str, share: float | None = None) -> int:
    """Return the number of steps of the linear warm-up before the schedule begins.

    Args:
        steps: steps of the training.
        schedule: its name; one_cycle has no warm-up, because it has its own rise.
        share: the share of the steps that was set; None: 5 %, at most 100 steps.
    """
    if schedule == "one_cycle":
        return 0
    return min(100, max(1, steps // 20)) if share is None else round(share * steps)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: a linear rise during the warm-up, then the schedule.

    Args:
        step: number of the step, from 0.
        recipe: the peak learning rate, the schedule and the number of steps.
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    span = max(1, recipe.steps - recipe.warmup_steps)
    done = min(step - recipe.warmup_steps, span)  # planning times steps before their number is known
    return recipe.learning_rate * SCHEDULES[recipe.schedule](done, span)


def _cosine(done: float, span: float) -> float:
    """Fall along half a cosine from 1 to 0. Loshchilov, Hutter 2017, arXiv:1608.03983, without restarts."""
    return 0.5 * (1 + math.cos(math.pi * done / span))


def _poly(done: int, span: int) -> float:
    """Fall almost linearly from 1 to 0. Chen et al. 2017, arXiv:1606.00915."""
    return (1 - done / span) ** _POLY_POWER


def _one_cycle(done: int, span: int) -> float:
    """Rise to the peak, then fall far below the start, each along half a cosine. Smith, Topin 2018, arXiv:1708.07120."""
    peak, last = _RISE_SHARE * span - 1, span - 1
    if done <= peak:
        return 1 + (_START - 1) * _cosine(done, peak)
    return _END + (1 - _END) * _cosine(done - peak, last - peak)


def _constant(_done: int, _span: int) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "cosine": _cosine,
    "poly": _poly,
    "one_cycle": _one_cycle,
    "constant": _constant,
}
"""``(steps since the warm-up, steps after the warm-up in total) -> share of the peak``, by the name in params.yaml."""

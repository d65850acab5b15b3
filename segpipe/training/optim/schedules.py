"""The learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Callable

from segpipe.training.plan import Recipe

_POWER = 0.9
"""Of DeepLab's polynomial."""
_RISE = 0.3
"""Share of the steps in which one_cycle rises."""
_START, _END = 1 / 25, 1 / 250_000
"""Where one_cycle starts and ends, as shares of the peak."""


def warmup_steps(steps: int, schedule: str, share: float | None = None) -> int:
    """Steps of a linear rise before the schedule begins: the share that was set, or else 5 %, at most 100; none for one_cycle, which
    rises by itself."""
    if schedule == "one_cycle":
        return 0
    return min(100, max(1, steps // 20)) if share is None else round(share * steps)


def learning_rate(step: int, recipe: Recipe) -> float:
    """The rate of a step, the first of which is 0: a linear rise over the warm-up, then what the schedule says."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    span = max(1, recipe.steps - recipe.warmup_steps)
    done = min(step - recipe.warmup_steps, span)  # a plan times steps before it knows how many there will be
    return recipe.learning_rate * SCHEDULES[recipe.schedule](done, span)


def _cosine(done: float, span: float) -> float:
    """Half a cosine from 1 down to 0. Loshchilov, Hutter 2017, arXiv:1608.03983, without restarts."""
    return 0.5 * (1 + math.cos(math.pi * done / span))


def _poly(done: int, span: int) -> float:
    """Chen et al. 2017, arXiv:1606.00915: nearly a straight line from 1 to 0."""
    return (1 - done / span) ** _POWER


def _one_cycle(done: int, span: int) -> float:
    """Smith, Topin 2018, arXiv:1708.07120: up to the peak and far below the start, both by half a cosine."""
    peak, last = _RISE * span - 1, span - 1
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
"""``(steps done since the warm-up, steps in all but the warm-up) -> share of the peak``, by the name in params.yaml."""

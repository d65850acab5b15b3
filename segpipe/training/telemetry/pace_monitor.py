"""A warning if a training is slower than planned: the machine may be busier than when its budget of time was turned into steps."""

from __future__ import annotations

import math
import time

from segpipe.config import TrainParams, parse_budget
from segpipe.progress import format_seconds, say
from segpipe.training.plan import NetworkPlan, Plan

_MAX_SLOWDOWN = 1.1
"""A budget of time is to be kept within a tenth."""


class PaceMonitor:
    """Compares the time between validations with that planned.

    It starts at the first validation, because the steps before it include compilation and warm-up.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self._silent = not _has_time_budget(plan)
        self._first: tuple[int, float] | None = None

    def check(self, step: int) -> None:
        """Report once if the training will end much later than planned. Called after the validation at this step."""
        now, recipe, execution = time.perf_counter(), self.plan.recipe, self.plan.execution
        if self._silent or step >= recipe.steps:
            return
        if self._first is None:
            self._first = step, now
            return
        first_step, first_time = self._first
        planned_ms = recipe.val_every * execution.ms_per_step + execution.ms_per_validation
        validations = (step - first_step) / recipe.val_every
        slowdown = (now - first_time) * 1000 / (validations * planned_ms)
        if slowdown > _MAX_SLOWDOWN:
            late_s = (slowdown - 1) * math.ceil(recipe.steps / recipe.val_every) * planned_ms / 1000
            say(
                f"note: steps and validations take {slowdown - 1:.0%} longer than planned: the training will end about "
                f"{format_seconds(late_s)} late; if this machine stays so busy, plan again (segpipe plan {self.plan.candidate} --refresh)"
            )
            self._silent = True


def _has_time_budget(plan: Plan) -> bool:
    """Return whether the steps of a plan follow from a budget of time."""
    if plan.settings is None:
        return False
    budget = plan.settings.get("train.budget", TrainParams().budget)
    return parse_budget(budget)[0] == "seconds"

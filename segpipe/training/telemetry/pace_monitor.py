"""Whether a training keeps the pace by which its budget of time became steps: a machine may have more to do than when it planned."""

from __future__ import annotations

import math
import time

from segpipe.config import TrainParams, parse_budget
from segpipe.progress import format_seconds, say
from segpipe.training.plan import Plan

_MUCH = 1.1
"""Times as long as planned: a budget of time is to be kept within a tenth."""


class PaceMonitor:
    """From the first look at val on (what goes before compiles, and warms up), the time between looks against that planned."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._silent = not _by_time(plan)
        self._first: tuple[int, float] | None = None

    def look(self, step: int) -> None:
        """After a look at val, at this step: say once where the training will end much later than planned."""
        now, recipe, execution = time.perf_counter(), self.plan.recipe, self.plan.execution
        assert recipe is not None and execution is not None
        if self._silent or step >= recipe.steps:
            return
        if self._first is None:
            self._first = step, now
            return
        a_look = recipe.val_every * execution.ms_per_step + execution.ms_per_validation
        looks = (step - self._first[0]) / recipe.val_every
        slower = (now - self._first[1]) * 1000 / (looks * a_look)
        if slower > _MUCH:
            late = (slower - 1) * math.ceil(recipe.steps / recipe.val_every) * a_look / 1000
            say(
                f"note: steps and validations take {slower - 1:.0%} longer than planned: the training will end some "
                f"{format_seconds(late)} late; where this machine stays so busy, plan anew (segpipe plan {self.plan.candidate} --refresh)"
            )
            self._silent = True


def _by_time(plan: Plan) -> bool:
    """Whether the steps of a plan follow from a time."""
    if plan.settings is None:
        return False
    return parse_budget(plan.settings.get("train.budget", TrainParams().budget))[0] == "seconds"  # type: ignore[call-arg]

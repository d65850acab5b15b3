"""What a wall-clock budget can pay for: whether a network is too slow here to learn at full resolution."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segpipe.config import parse_budget
from segpipe.training.machine import choose_device, synchronize
from segpipe.training.memory import free_unused_memory, is_out_of_memory
from segpipe.training.planning.precision_benchmark import candidate_settings
from segpipe.training.sampling.crops import collate_of
from segpipe.training.step import Stepper, configure_process
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import SLOW_STEP_MS

if TYPE_CHECKING:
    from segpipe.config import TrainParams
    from segpipe.training.plan import Plan
    from segpipe.training.sampling.crops import Reader

MIN_STEPS = 75
"""Steps. On street scenes networks on VGG16 were bought 31 to 54 in three minutes; an fpn with 94 scored alike at either resolution."""
WORTH = 1.3
"""How many times the steps half the resolution has to buy."""
_SHARE = 0.75
"""Of a budget, what is left for the steps, about."""
_TRIED = 2
"""Crops of the step that is timed."""


@dataclass(frozen=True)
class StepPrice:
    """What a pixel costs that a network learns from, and how many of these milliseconds a training has; infinitely many, where the
    budget is counted in steps."""

    ms: float
    budget_ms: float

    def steps(self, draft: Plan) -> float:
        """How many steps of this plan, at the resolution that was timed, the budget buys, about."""
        recipe = draft.recipe
        assert recipe is not None
        edge = recipe.patch / draft.shrink
        return self.budget_ms / (self.ms * recipe.batch * edge**2)


def measure_step_price(draft: Plan, network: torch.nn.Module, wanted: TrainParams, train: Reader) -> StepPrice:
    """The price by a few steps of a copy of the network on two crops, in the setting that is likeliest to win.

    Where even these do not fit into memory, that is for `segpipe.training.memory` to meet, and steps have no price.
    """
    kind, amount = parse_budget(wanted.budget)
    if kind != "seconds":
        return StepPrice(1.0, math.inf)
    try:
        ms = _step_ms(draft, network, wanted, train)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_unused_memory()
        return StepPrice(1.0, math.inf)
    assert draft.recipe is not None
    edge = draft.recipe.patch / draft.shrink
    side_by_side = wanted.num_nodes * (wanted.devices if choose_device(wanted.accelerator) == "cuda" else 1)
    return StepPrice(ms / (_TRIED * edge**2), _SHARE * amount * 1000 * side_by_side / (wanted.folds or 1))


def _step_ms(draft: Plan, network: torch.nn.Module, wanted: TrainParams, train: Reader) -> float:
    assert draft.recipe is not None
    device = choose_device(wanted.accelerator)
    configure_process(torch.get_num_threads())
    crops = samples_of(train, draft)
    images, labels = collate_of(crops)([crops[place] for place in range(_TRIED)])
    recipe = draft.recipe.model_copy(update={"accumulate": 1})
    stepper = Stepper(copy.deepcopy(network), draft.model_family, recipe, candidate_settings(wanted, device)[0], device)
    least = math.inf
    for number in range(4):  # the first one prepares kernels
        began = time.perf_counter()
        stepper.step(number, images, labels, draft.seed)
        synchronize(device)
        took = (time.perf_counter() - began) * 1000
        least = min(least, took) if number else least
        if number and took > SLOW_STEP_MS:
            break
    return least

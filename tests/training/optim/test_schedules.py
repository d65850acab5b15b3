import math
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, PolynomialLR

from segpipe.config import TrainParams
from segpipe.training.optim.schedules import SCHEDULES, learning_rate, warmup_steps
from tests.worlds.tiny_training import make_recipe

TORCH = {
    "cosine": lambda o, n: CosineAnnealingLR(o, n),
    "poly": lambda o, n: PolynomialLR(o, n, power=0.9),
    "one_cycle": lambda o, n: OneCycleLR(o, max_lr=0.3, total_steps=n, cycle_momentum=False),
    "constant": lambda o, _: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
}


def test_all_schedules_of_the_settings_exist():
    assert set(SCHEDULES) == set(TrainParams.model_fields["schedule"].annotation.__args__) == set(TORCH)


@pytest.mark.parametrize("steps", [4, 17, 100])
@pytest.mark.parametrize("name", TORCH)
def test_rates_equal_those_of_torch(name, steps):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = TORCH[name](optimiser, steps)
    recipe = make_recipe(steps=steps, warmup_steps=0, learning_rate=0.3, schedule=name)
    for step in range(steps):
        assert learning_rate(step, recipe) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6, abs=1e-12)
        optimiser.step()
        scheduler.step()


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_rates_rise_then_fall_and_are_never_zero(name, steps):
    warmup = warmup_steps(steps, name)
    recipe = make_recipe(steps=steps, warmup_steps=warmup, learning_rate=1.0, schedule=name)
    rates = [learning_rate(s, recipe) for s in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert all(a <= b for a, b in pairwise(rates[: peak + 1])) and all(a >= b for a, b in pairwise(rates[peak:]))
    if steps == 100:
        assert rates[:3] == pytest.approx([0.2, 0.4, 0.6]) or name == "one_cycle"
        assert max(rates) == pytest.approx(1, abs=1e-2) and (rates[-1] < 0.02 or name == "constant")


def test_a_warm_up_is_as_long_as_set():
    assert [warmup_steps(1000, "cosine", share) for share in (None, 0.0, 0.3)] == [50, 0, 300]
    assert warmup_steps(1000, "one_cycle", None) == 0
    recipe = make_recipe(steps=10, warmup_steps=0, learning_rate=1.0)
    assert learning_rate(0, recipe) == 1.0, "without a warm-up, the first rate is the peak"


@pytest.mark.parametrize("name", TORCH)
def test_there_is_a_rate_beyond_the_last_step(name):
    recipe = make_recipe(steps=1, warmup_steps=0, learning_rate=1.0, schedule=name)
    assert all(isinstance(rate := learning_rate(s, recipe), float) and 0 <= rate <= 1 for s in range(100))


def test_the_default_keeps_its_bits():
    recipe = make_recipe(steps=999, warmup_steps=49, learning_rate=0.0017)
    for step in range(49, 999):
        assert learning_rate(step, recipe) == 0.0017 * 0.5 * (1 + math.cos(math.pi * (step - 49) / 950))

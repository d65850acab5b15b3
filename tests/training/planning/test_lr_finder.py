import itertools

import numpy as np
import pytest
import torch

from segpipe.training.planning import execution
from segpipe.training.planning.lr_finder import (
    MIN_STEPS,
    RangeTest,
    choose_learning_rate,
    find_learning_rate,
    sweep_learning_rates,
)
from segpipe.training.planning.planner import plan_on
from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import candidate_params, fingerprint_of, make_plan

RATES = np.geomspace(1e-5, 0.1, 60)


def falling_at(rate, noise=0.0):
    """A loss that falls by 1.5 around a rate, and rises far above it."""
    decades = np.log10(RATES / rate)
    losses = 2 - 1.5 / (1 + np.exp(-4 * decades)) + np.maximum(0, decades - 1.2) ** 2
    return losses + noise * np.random.default_rng(0).standard_normal(60)


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("rate", [2e-4, 1e-3, 5e-3])
def test_the_steepest_descent_is_found(rate, noise):
    test = choose_learning_rate(RATES, falling_at(rate, noise), rule=1e-3)
    assert rate / 1.6 < test.rate < rate * 1.6 and f"{test.rate:g}: the loss falls fastest" in test.words


@pytest.mark.parametrize(("rule", "bound"), [(3e-5, 3e-4), (0.1, 0.01)])
def test_the_choice_stays_near_the_rule_of_thumb(rule, bound):
    test = choose_learning_rate(RATES, falling_at(2e-3), rule)
    assert test.rate == pytest.approx(bound) and "10 times is the bound" in test.words


def test_without_a_descent_the_rule_of_thumb_is_used():
    assert choose_learning_rate(RATES, np.linspace(1, 2, 60), 1e-3).rate == 1e-3
    test = choose_learning_rate(RATES[:4], np.ones(4), 1e-3)
    assert test.rate == 1e-3 and "diverged at once" in test.words


def test_a_sweep_ends_when_the_loss_diverges(monkeypatch):
    stepper = build_stepper(make_plan())
    rates = []

    def step(number, *_):
        rates.append(stepper.recipe.learning_rate)
        return torch.tensor(float("nan") if number == 30 else 1 - 0.01 * number)

    monkeypatch.setattr(stepper, "step", step)
    test = sweep_learning_rates(stepper, itertools.repeat((None, None)), 1e-3, 60, 0)
    assert test.steps == 30 and len(rates) == 31
    np.testing.assert_allclose(rates, np.geomspace(1e-5, 0.1, 60)[:31])


def test_on_real_batches_the_rate_is_deterministic_and_trains(train_reader):
    from segpipe.training.sampling.crops import Crops

    plan = make_plan(patch=32, batch=4, ema=0.0)

    def find():
        return find_learning_rate(build_stepper(plan), Crops(train_reader, plan), 0, plan.seed, 0.0245 / 0.05, 1.0)

    test = find()
    assert test == find() and MIN_STEPS <= test.steps <= 24 and 2e-4 <= test.rate <= 2e-2


def test_a_plan_measures_the_rate_if_it_is_set_to_auto(train_reader, val_reader, monkeypatch):
    calls = []

    def measured(*arguments):
        calls.append(arguments)
        return RangeTest(0.0042, 60, "0.0042: by a test")

    monkeypatch.setattr(execution, "find_learning_rate", measured)
    common = {"budget": "3 steps", "patch": 32, "batch": 2}
    plan = plan_on(
        "net",
        candidate_params(common | {"learning_rate": "auto"}),
        fingerprint_of(train_reader),
        train_reader,
        val_reader,
    )
    assert (
        plan.recipe.learning_rate == 0.0042 and plan.reasons["learning rate"] == "0.0042: by a test" and len(calls) == 1
    )
    short = find_learning_rate(calls[0][0], *calls[0][1:4], seconds=0.001 * (MIN_STEPS - 1) / 0.05, ms_step=1.0)
    assert short.rate == 1e-3 and "too short" in short.words

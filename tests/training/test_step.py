"""A step of a training, apart from its loss and its optimiser."""

import torch

from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import make_plan


def test_the_running_average_follows_its_recursion():
    """For weights, statistics of normalisation layers and their counters."""
    plan = make_plan(ema=0.6)
    stepper = build_stepper(plan)
    expected = {k: v.clone() for k, v in stepper.average.state_dict().items()}
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64), dtype=torch.uint8)
    for number in range(8):
        stepper.step(number, images, labels, 0)
        decay = min(0.6, (1 + number) / (10 + number))
        for key, value in stepper.network.state_dict().items():
            average = decay * expected[key] + (1 - decay) * value
            expected[key] = average if value.is_floating_point() else value.clone()
    for key, value in stepper.average.state_dict().items():
        torch.testing.assert_close(value, expected[key], atol=1e-5, rtol=1e-4)


def test_without_a_running_average_the_weights_themselves_are_used():
    stepper = build_stepper(make_plan(ema=0.0))
    assert stepper.average is stepper.network

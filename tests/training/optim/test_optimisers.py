import numpy as np
import pytest
import torch

from segpipe.config import TrainParams
from segpipe.errors import ConfigError
from segpipe.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from segpipe.training.optim.optimisers import DEFAULTS, build_optimiser
from segpipe.training.planning.recipe import choose_image_recipe
from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import draft_of, fingerprint_of, make_plan, make_recipe


def sgd(w, grads, lr, decay, momentum, nesterov):
    velocity = 0
    for number, g in enumerate(grads):
        g = g + decay * w
        velocity = g if number == 0 else momentum * velocity + g
        w = w - lr * (g + momentum * velocity if nesterov else velocity)
    return w


def adam(w, grads, lr, decay, decoupled):
    m = v = 0
    for number, g in enumerate(grads, 1):
        if decoupled:
            w = w * (1 - lr * decay)
        else:
            g = g + decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9**number)) / (np.sqrt(v / (1 - 0.999**number)) + 1e-8)
    return w


BY_HAND = {
    "adamw": lambda w, g, lr, d: adam(w, g, lr, d, True),
    "adam": lambda w, g, lr, d: adam(w, g, lr, d, False),
    "sgd": lambda w, g, lr, d: sgd(w, g, lr, d, 0.8, True),
    "plain sgd": lambda w, g, lr, d: sgd(w, g, lr, d, 0.8, False),
    "sgd without momentum": lambda w, g, lr, d: sgd(w, g, lr, d, 0.0, False),
}
CHANGES = {
    "plain sgd": {"optimizer": "sgd", "nesterov": False},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_equal_their_formula_with_decay_of_kernels_only(name):
    layer = torch.nn.Linear(3, 2)
    changes = {"momentum": 0.8} | CHANGES.get(name, {"optimizer": name})
    recipe = make_recipe(weight_decay=0.1, learning_rate=0.05, **changes)
    optimiser = build_optimiser(layer, recipe)
    rng = np.random.default_rng(0)
    for value, decay in ((layer.weight, 0.1), (layer.bias, 0.0)):
        start, grads = value.detach().double().numpy().copy(), rng.normal(size=(5, *value.shape))
        for grad in grads:
            value.grad = torch.from_numpy(grad).float()
            optimiser.step()
            optimiser.zero_grad()
        np.testing.assert_allclose(value.detach().numpy(), BY_HAND[name](start, grads, 0.05, decay), atol=2e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam"},
        {"optimizer": "muon"},
        {"encoder_rate": 0.2},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"schedule": "one_cycle"},
    ],
    ids=str,
)
def test_a_resumed_training_gives_the_same_bytes(tmp_path, changes):
    plan = make_plan(**changes)
    rng = torch.Generator().manual_seed(0)
    images = [torch.randn(2, 3, 32, 32, generator=rng) for _ in range(4)]
    labels = torch.randint(0, 3, (2, 32, 32), dtype=torch.uint8, generator=rng)
    first = build_stepper(plan)
    for number in range(4):
        first.step(number, images[number], labels, 5)
        if number == 1:
            save_checkpoint(tmp_path, plan, first, {}, TrainingState(step=2))
    second = build_stepper(plan)
    load_checkpoint(tmp_path, plan, second)
    for number in (2, 3):
        second.step(number, images[number], labels, 5)
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_learning_rate_and_weight_decay_follow_the_optimizer(train_reader):
    def choose(**settings):
        draft = draft_of(train_reader, fingerprint=fingerprint_of(train_reader), **settings)
        return choose_image_recipe(draft), draft.reasons["optimizer"]

    assert {*DEFAULTS, "auto"} == set(TrainParams.model_fields["optimizer"].annotation.__args__)
    for name, defaults in DEFAULTS.items():
        recipe, _ = choose(optimizer=name)
        assert (recipe.learning_rate, recipe.weight_decay) == (defaults.learning_rate, defaults.weight_decay)
    recipe, reason = choose(optimizer="sgd", weight_decay=0, schedule="poly", batch=2)
    assert recipe.learning_rate == 0.025
    assert reason == "sgd with Nesterov momentum 0.9, weight decay 0; the learning rate follows poly"
    recipe, reason = choose(encoder_rate=0.25)
    assert recipe.encoder_rate == 0.25
    assert reason.startswith("adamw, the encoder at 0.25 times the rate, weight decay")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_an_encoder_learns_at_its_own_rate(optimizer):
    """With the same gradients, a fifth of the rate moves a weight a fifth as far; only kernels decay, in the encoder too."""
    updates, decays = [], []
    for factor in (1.0, 0.2):
        plan = make_plan(encoder_rate=factor, optimizer=optimizer, weight_decay=0.1, clip_norm=1e9)
        stepper = build_stepper(plan)
        before = {name: value.detach().clone() for name, value in stepper.network.named_parameters()}
        rng = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, 32, 32, generator=rng)
        stepper.step(0, images, torch.randint(0, 3, (2, 32, 32), dtype=torch.uint8, generator=rng), 5)
        updates.append({name: value.detach() - before[name] for name, value in stepper.network.named_parameters()})
        decays.append([group["weight_decay"] for group in stepper.optimizer.param_groups])
    for name, update in updates[0].items():
        expected = update * (0.2 if name.startswith("encoder.") else 1)
        torch.testing.assert_close(updates[1][name], expected, rtol=1e-3, atol=3e-7)
    assert any(name.startswith("encoder.") and bool(update.any()) for name, update in updates[0].items())
    kernels = [0.1, 0.1] if optimizer == "muon" else [0.1]  # matrices and others
    assert decays == [[*kernels, 0.0], [*kernels, 0.0] * 2]


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(ConfigError, match=r"train\.encoder_rate.*set it to 1"):
        build_optimiser(torch.nn.Linear(2, 2), make_recipe(encoder_rate=0.5))

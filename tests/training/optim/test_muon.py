"""Muon compared with its closed form by singular values, and with torch's own on matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segpipe.config import Params
from segpipe.training.optim.muon import ARE_MATRICES, Muon, is_worthwhile, orthogonalisation_flops, orthogonalise
from segpipe.training.optim.optimisers import build_optimiser
from segpipe.training.planning import recipe
from segpipe.training.planning.planner import plan_on
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draw, fingerprint_of, make_recipe
from tests.worlds.trainings import register


def orthogonalised(matrix: np.ndarray) -> np.ndarray:
    """The five iterations on singular values: each is an odd polynomial of the one before."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (32, 32)])
def test_singular_values_end_near_one(shape):
    matrices = np.random.default_rng(0).normal(size=(3, *shape))
    result = orthogonalise(torch.from_numpy(matrices)).numpy()
    np.testing.assert_allclose(result, [orthogonalised(matrix) for matrix in matrices], atol=1e-6)
    wide = orthogonalise(torch.randn(1, 16, 200))
    values = torch.linalg.svdvals(wide)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.25
    assert bool((orthogonalise(torch.zeros(2, 16, 16)) == 0).all())


@pytest.mark.parametrize("condition", [1e0, 1e1, 1e3])
def test_bfloat16_is_as_precise_as_iterating_on_the_matrix_itself(condition):
    """Spans of iterations on square matrices must not lose precision compared with single iterations."""
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(2, 64, 64, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(2, 600, 64, generator=generator, dtype=torch.float64))
    matrices = (u * torch.logspace(0, -math.log10(condition), 64, dtype=torch.float64)) @ v.mT
    exact = torch.from_numpy(np.stack([orthogonalised(matrix) for matrix in matrices.numpy()]))
    by_steps = matrices.bfloat16() / torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True).bfloat16()
    for _ in range(5):
        square = by_steps @ by_steps.mT
        by_steps = 3.4445 * by_steps + (-4.7750 * square + 2.0315 * square @ square) @ by_steps

    def error(result: torch.Tensor) -> float:
        return float((result.double() - exact).norm() / exact.norm())

    assert error(orthogonalise(matrices.bfloat16())) < error(by_steps) + 0.05


def a_network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 3),
        torch.nn.Conv2d(24, 24, 3, groups=24),
        torch.nn.Conv2d(24, 40, 1),
        torch.nn.Conv2d(40, 40, 3),
        torch.nn.Conv2d(40, 40, 3),
        torch.nn.Conv2d(40, 3, 1),
    )


def with_gradients(network: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_kernels_are_updated_as_by_torchs_muon_and_all_else_as_by_adamw():
    ours, theirs = a_network(), a_network()
    recipe = make_recipe(weight_decay=0.1, learning_rate=0.05, optimizer="muon")
    optimiser = build_optimiser(ours, recipe, half=True)
    matrices = {
        name: value
        for name, value in theirs.named_parameters()
        if name in ("0.weight", "2.weight", "3.weight", "4.weight")
    }
    flat = {name: torch.nn.Parameter(value.detach().movedim(1, -1).flatten(1)) for name, value in matrices.items()}
    muon = torch.optim.Muon(flat.values(), lr=0.05, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    rest = [(name, value) for name, value in theirs.named_parameters() if name not in matrices]
    kernels = [value for _, value in rest if value.ndim > 1]
    adamw = torch.optim.AdamW(
        [
            {"params": kernels, "weight_decay": 0.1},
            {"params": [v for _, v in rest if v.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.05,
    )
    for step in range(4):
        with_gradients(ours, step)
        with_gradients(theirs, step)
        for name, value in flat.items():
            value.grad = matrices[name].grad.movedim(1, -1).flatten(1)
        optimiser.step()
        muon.step()
        adamw.step()
    updated = dict(ours.named_parameters())
    for name, value in rest:
        torch.testing.assert_close(updated[name], value, rtol=1e-5, atol=1e-6)
    for name, value in flat.items():
        matrix = updated[name].detach().movedim(1, -1).flatten(1)
        torch.testing.assert_close(
            matrix, value.detach(), rtol=0, atol=0.02
        )  # bfloat16, four steps of about 0.05 * 0.2


def test_the_memory_format_of_kernels_does_not_matter():
    plain, channels_last = a_network(), a_network().to(memory_format=torch.channels_last)
    for network in (plain, channels_last):
        optimiser = build_optimiser(network, make_recipe(optimizer="muon"))
        for step in range(2):
            with_gradients(network, step)
            optimiser.step()
    for value, other in zip(plain.parameters(), channels_last.parameters(), strict=True):
        torch.testing.assert_close(value, other)


def test_a_kernel_without_gradient_stays_until_it_has_one():
    network = a_network()
    optimiser = build_optimiser(network, make_recipe(optimizer="muon"))
    with_gradients(network, 0)
    network[3].weight.grad = None
    before = network[3].weight.detach().clone()
    optimiser.step()
    assert torch.equal(network[3].weight, before)
    with_gradients(network, 1)
    optimiser.step()
    assert not torch.equal(network[3].weight, before)


def test_small_and_depthwise_kernels_are_not_matrices():
    optimiser = build_optimiser(a_network(), make_recipe(optimizer="muon"))
    assert isinstance(optimiser, Muon)
    shapes = {
        kind: {tuple(p.shape) for g in optimiser.param_groups if g[ARE_MATRICES] is kind for p in g["params"]}
        for kind in (True, False)
    }
    assert shapes[True] == {(24, 3, 3, 3), (40, 24, 1, 1), (40, 40, 3, 3)}
    assert {(24, 1, 3, 3), (3, 40, 1, 1), (40,)} <= shapes[False]


def test_muon_is_worthwhile_if_orthogonalisation_is_a_small_part_of_a_step():
    network = torch.nn.Sequential(torch.nn.Conv2d(32, 64, 3, padding=1, bias=False))
    assert orthogonalisation_flops(network) == 2 * (4 * 64 * 64 * 288 + 14 * 64**3)
    forward = 2 * 64 * 288 * 8 * 8  # an image of 8 x 8
    least = orthogonalisation_flops(network) / (0.4 * 3 * forward)
    assert 5 < least < 6 and not is_worthwhile(network, (5, 32, 8, 8)) and is_worthwhile(network, (6, 32, 8, 8))

    class ValueDependent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(32, 64, 3)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    assert not is_worthwhile(ValueDependent(), (8, 32, 64, 64)), "its control flow is not known without images"


@pytest.mark.parametrize(("setting", "chosen"), [("auto", "muon"), ("adamw", "adamw"), ("muon", "muon")])
def test_a_plan_uses_muon_if_it_is_worthwhile_and_the_optimiser_is_left_open(setting, chosen, monkeypatch):
    shapes = []
    monkeypatch.setattr(recipe, "is_worthwhile", lambda _, shape: shapes.append(shape) or True)
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "3 steps", "patch": 32, "batch": 2, "optimizer": setting}
    register()
    params = Params.model_validate({"train": settings, "candidates": {"net": {"family": "tiny"}}})
    plan = plan_on("net", params, fingerprint_of(train), train, val)
    assert plan.recipe.optimizer == chosen and shapes == [(2, 3, 32, 32)] * (setting == "auto")
    assert (
        plan.reasons["optimizer"].startswith(plan.recipe.optimizer)
        and plan.recipe.optimizer in plan.reasons["learning rate"]
    )

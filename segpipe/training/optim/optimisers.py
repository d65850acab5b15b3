"""The optimisers that training knows, and their default settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from segpipe.training.optim.freezing import encoder_of
from segpipe.training.optim.muon import Muon

if TYPE_CHECKING:
    from segpipe.training.plan import Recipe


@dataclass(frozen=True)
class OptimiserDefaults:
    """The default settings of an optimiser, for a batch of 8."""

    learning_rate: float
    weight_decay: float
    """Decoupled from the gradient for Muon and AdamW; added to it for the others, for which it has to be smaller."""


RATE_FACTOR = "share_of_rate"
"""Key of a parameter group: the factor on the learning rate of each step."""
DEFAULTS = {
    "muon": OptimiserDefaults(4e-3, 0.1),
    "adamw": OptimiserDefaults(2e-3, 0.01),
    "adam": OptimiserDefaults(2e-3, 1e-5),
    "sgd": OptimiserDefaults(0.05, 1e-4),
}
"""By the name in params.yaml."""


def build_optimiser(network: torch.nn.Module, recipe: Recipe, half: bool = False) -> torch.optim.Optimizer:
    """Build the optimiser of a recipe over the network's parameters, as one fused kernel.

    SGD uses one call per group instead: torch's fused version requires that all momenta start at the same step, and those of a frozen
    encoder start late.

    Args:
        network: the network.
        recipe: the optimiser and its settings.
        half: whether steps are computed in bfloat16.
    """
    groups: Any = _parameter_groups(network, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            foreach=True,
        )
    if recipe.optimizer == "muon":
        return Muon(groups, recipe.learning_rate, half)
    optimiser_class = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer]
    return optimiser_class(groups, lr=recipe.learning_rate, fused=True)


def _parameter_groups(network: torch.nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Return groups with weight decay (kernels) and without (biases, scales of normalisation), for the encoder separately if it has
    its own learning rate."""
    encoder = set(encoder_of(network, "encoder_rate", 1).parameters()) if recipe.encoder_rate != 1 else set()
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {
            "params": [p for p in members if (p.ndim > 1) == kernels],
            "weight_decay": recipe.weight_decay * kernels,
            RATE_FACTOR: factor,
        }
        for factor, members in (
            (1.0, [p for p in parameters if p not in encoder]),
            (recipe.encoder_rate, [p for p in parameters if p in encoder]),
        )
        for kernels in (True, False)
    ]
    return [group for group in groups if group["params"]]

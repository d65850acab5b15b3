"""The optimisers of torch that training knows, and what each wants where params.yaml leaves it open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from segpipe.training.optim.freezing import encoder_of
from segpipe.training.optim.muon import Muon

if TYPE_CHECKING:
    from segpipe.training.plan import Recipe


@dataclass(frozen=True)
class Defaults:
    """For a batch of 8."""

    learning_rate: float
    weight_decay: float
    """Decoupled from the gradient for AdamW; added to it for the others, and there it has to be smaller."""


RATE_FACTOR = "share_of_rate"
"""Of a group of parameters: by how much the learning rate of a step is multiplied for it."""
DEFAULTS = {
    "muon": Defaults(4e-3, 0.1),
    "adamw": Defaults(2e-3, 0.01),
    "adam": Defaults(2e-3, 1e-5),
    "sgd": Defaults(0.05, 1e-4),
}
"""By the name in params.yaml."""


def build_optimiser(network: torch.nn.Module, recipe: Recipe, half: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a recipe over the network's parameters, as one kernel for all of them. half: steps are computed in bfloat16.

    SGD as one call a group: torch's fused one demands that all momenta begin at the same step, and a held encoder's begin late.
    """
    groups: Any = _groups(network, recipe)
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
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer]
    return kind(groups, lr=recipe.learning_rate, fused=True)


def _groups(network: torch.nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Weight decay for kernels; none for biases and the scales of normalisation layers. The encoder apart, where its rate is another."""
    encoder = set(encoder_of(network, "encoder_rate", 1).parameters()) if recipe.encoder_rate != 1 else set()
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {
            "params": [p for p in own if (p.ndim > 1) == kernels],
            "weight_decay": recipe.weight_decay * kernels,
            RATE_FACTOR: share,
        }
        for share, own in (
            (1.0, [p for p in parameters if p not in encoder]),
            (recipe.encoder_rate, [p for p in parameters if p in encoder]),
        )
        for kernels in (True, False)
    ]
    return [group for group in groups if group["params"]]

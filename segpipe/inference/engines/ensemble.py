"""Several networks of the same kind, averaged and run as one module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_EPSILON = 1e-12
"""Probabilities are at least this before their logarithm is taken."""


class Ensemble(torch.nn.Module):
    """Averages the probabilities of its members and returns them as logits.

    `Outputs.values` of these logits is the mean of the members' values. An ensemble is a single module, so it is exported as a single
    graph.

    Args:
        members: The networks.
        exclusive: Number of leading channels that are scores of exclusive classes (softmax); each of the others is independent
            (sigmoid).
    """

    def __init__(self, members: Sequence[torch.nn.Module], exclusive: int) -> None:
        super().__init__()
        self.members, self.exclusive = torch.nn.ModuleList(members), exclusive

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) or volumes (N, C, D, H, W) to logits (N, channels, ...)."""
        first, *others = self.members
        total = self._values(first(images))
        for member in others:
            total = total + self._values(member(images))
        return self._logits(total / len(self.members))

    def _values(self, logits: Tensor) -> Tensor:
        return self._by_kind(logits, lambda scores: torch.softmax(scores, 1), torch.sigmoid)

    def _logits(self, values: Tensor) -> Tensor:
        return self._by_kind(values, _log, lambda p: _log(p) - _log(1 - p))

    def _by_kind(
        self, channels: Tensor, exclusive: Callable[[Tensor], Tensor], independent: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Apply one function to the exclusive channels and another to the independent ones."""
        if self.exclusive == channels.shape[1]:
            return exclusive(channels)
        if self.exclusive == 0:
            return independent(channels)
        return torch.cat([exclusive(channels[:, : self.exclusive]), independent(channels[:, self.exclusive :])], 1)


def _log(values: Tensor) -> Tensor:
    return torch.log(values.clamp_min(_EPSILON))

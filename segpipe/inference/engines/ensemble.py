"""Several networks of one kind as one, which says what they say on average."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_TINY = 1e-12


class Ensemble(torch.nn.Module):
    """The logits of the mean of what members say: `Outputs.values` of them is the mean of theirs. One module, and so one graph.

    exclusive: how many channels, from the first, are scores of classes of which one is right; each of the others stands by itself.
    """

    def __init__(self, members: Sequence[torch.nn.Module], exclusive: int) -> None:
        super().__init__()
        self.members, self.exclusive = torch.nn.ModuleList(members), exclusive

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) or (N, C, D, H, W) -> logits (N, channels, ...)."""
        first, *others = self.members
        total = self._values(first(images))
        for member in others:
            total = total + self._values(member(images))
        return self._logits(total / len(self.members))

    def _values(self, logits: Tensor) -> Tensor:
        return self._by_kind(logits, lambda scores: torch.softmax(scores, 1), torch.sigmoid)

    def _logits(self, values: Tensor) -> Tensor:
        return self._by_kind(values, _log, lambda sure: _log(sure) - _log(1 - sure))

    def _by_kind(
        self, channels: Tensor, exclusive: Callable[[Tensor], Tensor], single: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self.exclusive == channels.shape[1]:
            return exclusive(channels)
        if self.exclusive == 0:
            return single(channels)
        return torch.cat([exclusive(channels[:, : self.exclusive]), single(channels[:, self.exclusive :])], 1)


def _log(values: Tensor) -> Tensor:
    return torch.log(values.clamp_min(_TINY))

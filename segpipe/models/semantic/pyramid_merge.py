"""How a feature pyramid becomes one."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

from torch import Tensor, nn


class SequentialSum(nn.Module):
    """The sum of features of one shape, one after another. A sum over a stack of them (as segmentation_models_pytorch has it) runs
    across the pixels of channels-last features, and took a processor 17 of 400 ms of a training step."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[(N, C, H, W), ...] -> (N, C, H, W)."""
        return functools.reduce(operator.add, features)

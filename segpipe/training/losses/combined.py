"""The weighted sum of the terms that `train.loss` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segpipe.config import LossParams
from segpipe.training.losses import terms
from segpipe.training.losses.boundary import boundary
from segpipe.training.losses.pixels import OverlappingPixels, Pixels

TERMS: dict[str, Callable[[Pixels, Any], Tensor]] = {
    "cross_entropy": terms.cross_entropy,
    "dice": terms.dice,
    "tversky": terms.tversky,
    "focal": terms.focal,
    "lovasz": terms.lovasz,
    "top_k": terms.top_k,
    "boundary": boundary,
}
"""The terms by their name in params.yaml."""


class SegmentationLoss(torch.nn.Module):
    """``sum of weight * term``, computed in float32. A batch without a counted pixel has loss 0.

    Args:
        class_weights: by class id.
        loss: the terms.
        overlapping: whether a pixel may have several classes.
    """

    class_weights: Tensor

    def __init__(self, class_weights: list[float], loss: LossParams, overlapping: bool = False) -> None:
        super().__init__()
        self.pixels = OverlappingPixels if overlapping else Pixels
        self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32), persistent=False)
        self.terms = [(term.weight, TERMS[name], term) for name, term in loss.terms.items()]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            logits: (N, K, H, W) or (N, K, D, H, W), any floating dtype.
            labels: (N, H, W) or (N, D, H, W), integer class ids (sets of classes, if they overlap) and `IGNORE`.

        Returns:
            A float32 scalar.
        """
        with torch.autocast(logits.device.type, enabled=False):
            pixels = self.pixels(logits, labels, self.class_weights)
            first, *others = (weight * term(pixels, options) for weight, term, options in self.terms)
            return sum(others, start=first)

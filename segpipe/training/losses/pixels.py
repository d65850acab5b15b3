"""The logits and labels of a batch in the form that the terms of the loss use."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from segpipe.samples import IGNORE
from segpipe.training.distributed.process_group import sum_over_ranks
from segpipe.training.losses.softmax import softmax_sums


class Pixels:
    """The logits and labels of a batch, with all its P pixels in a row.

    What several terms need is computed once, and only if a term asks for it. If several processes train, each has its share of the
    batch, and sums over pixels span all of them.

    Args:
        logits: (N, K, ...), any floating dtype.
        labels: (N, ...), integer class ids and `IGNORE`.
        class_weights: (K,) float32.
    """

    counted: Tensor
    """(P,) bool: False where a pixel is ignored."""
    target: Tensor
    """(P,) int64: class ids, 0 where ignored."""
    weight: Tensor
    """(P,) float32: the class weight of each pixel, 0 where ignored."""

    def __init__(self, logits: Tensor, labels: Tensor, class_weights: Tensor) -> None:
        self.logits, self.labels, self.class_weights = logits, labels, class_weights
        self.counted = labels.reshape(-1) != IGNORE
        self.target = torch.where(self.counted, labels.reshape(-1).long(), 0)
        self.weight = torch.where(self.counted, class_weights[self.target], 0.0)

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        shape = self.labels.shape
        return softmax_sums(self.logits, self.target.view(shape), self.counted.view(shape))

    @cached_property
    def log_p(self) -> Tensor:
        """Log-probabilities, (K, P) float32. Stored in rows of pixels; in rows of classes, a CPU would take three times as long."""
        return self.logits.movedim(1, 0).reshape(self.logits.shape[1], -1).float().log_softmax(0)

    @cached_property
    def smoothed_nll(self) -> Tensor:
        """Weighted -log p for a target that is spread evenly over all classes, (P,); 0 where ignored."""
        return -(self.log_p * self.class_weights[:, None]).mean(0) * self.counted

    @cached_property
    def nll(self) -> Tensor:
        """Negative log-likelihood of the true class, (P,); of class 0 where ignored."""
        return self._sums[0].reshape(-1)

    @cached_property
    def mask(self) -> Tensor:
        """Mask of counted pixels, (1, P) float32: 1 where counted, 0 where ignored."""
        return self.counted[None].float()

    @cached_property
    def p(self) -> Tensor:
        """Probabilities, (K, P); 0 where ignored."""
        return self.log_p.exp() * self.mask

    @cached_property
    def onehot(self) -> Tensor:
        """One-hot labels, (K, P) float32: 1 at the true class, 0 where ignored."""
        classes = torch.arange(self.logits.shape[1], device=self.target.device)[:, None]
        return ((self.target == classes) & self.counted).float()

    @cached_property
    def truth(self) -> Tensor:
        """Number of pixels of each class, (K,) float32, over all processes."""
        return sum_over_ranks(self.onehot.sum(1))

    @cached_property
    def hits(self) -> Tensor:
        """Sum of each class's probability over the pixels of that class, (K,), over all processes."""
        return sum_over_ranks(self.onehot @ torch.exp(-self.nll))

    @cached_property
    def mass(self) -> Tensor:
        """Sum of each class's probability over the counted pixels, (K,), over all processes."""
        return sum_over_ranks(self._sums[1])

    def weighted_mean(self, values: Tensor, weight: Tensor) -> Tensor:
        """Return the mean of values with weights of the same shape, in all processes; 0 if all weights are 0."""
        return sum_over_ranks((values * weight).sum()) / sum_over_ranks(weight.sum()).clamp_min(1e-12)

    def mean_over_present(self, values: Tensor) -> Tensor:
        """Return the mean of (K,) values over the classes that occur in the labels; 0 if none does."""
        present = (self.truth > 0).to(values.dtype)
        return (values * present).sum() / present.sum().clamp_min(1)


class OverlappingPixels(Pixels):
    """A batch whose classes overlap: a sigmoid decides for each class independently whether a pixel belongs to it.

    `onehot` has as many ones as a pixel has classes. `nll` and `weight` are (K, P): for the right answer about each class, and of
    each class, 0 where ignored.

    Args:
        logits: (N, K, ...), any floating dtype.
        labels: (N, ...), sets of classes (`segpipe.labels.OverlappingLabelling`) and `IGNORE`.
        class_weights: (K,) float32.
    """

    def __init__(self, logits: Tensor, labels: Tensor, class_weights: Tensor) -> None:
        self.labels, self.class_weights = labels, class_weights
        self.scores = logits.movedim(1, 0).reshape(logits.shape[1], -1).float()
        self.sets = labels.reshape(1, -1).long()
        self.counted = self.sets[0] != IGNORE
        self.weight = class_weights[:, None] * self.mask

    @cached_property
    def onehot(self) -> Tensor:
        """Labels, (K, P) float32: 1 for each class of a pixel, 0 where ignored."""
        bits = torch.arange(len(self.scores) - 1, device=self.sets.device)[:, None]
        return torch.cat([self.sets == 0, (self.sets >> bits) & 1]).float() * self.mask

    @cached_property
    def nll(self) -> Tensor:
        """Binary cross entropy of each class, (K, P); where ignored, that of an absent class."""
        return F.binary_cross_entropy_with_logits(self.scores, self.onehot, reduction="none")

    @cached_property
    def p(self) -> Tensor:
        """Probabilities, (K, P); 0 where ignored."""
        return self.scores.sigmoid() * self.mask

    @cached_property
    def hits(self) -> Tensor:
        """Sum of each class's probability over the pixels that have it, (K,), over all processes."""
        return sum_over_ranks((self.p * self.onehot).sum(1))

    @cached_property
    def mass(self) -> Tensor:
        """Sum of each class's probability over the counted pixels, (K,), over all processes."""
        return sum_over_ranks(self.p.sum(1))

    @cached_property
    def smoothed_nll(self) -> Tensor:
        """Weighted binary cross entropy of each class for a target of 0.5, (K, P)."""
        return (F.softplus(self.scores) - self.scores / 2) * self.weight

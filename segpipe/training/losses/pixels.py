"""A batch as every term of the loss sees it."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from segpipe.samples import IGNORE
from segpipe.training.distributed.process_group import sum_over_ranks
from segpipe.training.losses.softmax import softmax_sums


class Pixels:
    """Logits and labels of a batch as all its pixels in a row. What several terms need is computed once, and only where one asks.

    Where several processes train, each has its share of the batch; sums over pixels span all of them (`everywhere`).

    target: (P,) int64, in 0..K-1, 0 where ignored. counted: (P,) bool. weight: (P,) float32, the class weight of each pixel, 0 where
    ignored. labels: (N, ...) as given.
    """

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
        """(K, P) float32: log-probabilities. Long rows of pixels: along rows of classes it would cost a processor three times as much."""
        return self.logits.movedim(1, 0).reshape(self.logits.shape[1], -1).float().log_softmax(0)

    @cached_property
    def spread(self) -> Tensor:
        """(P,): -log p by class weight, the target spread evenly over all classes; 0 where ignored."""
        return -(self.log_p * self.class_weights[:, None]).mean(0) * self.counted

    @cached_property
    def nll(self) -> Tensor:
        """(P,): -log p of the true class; of class 0 where ignored."""
        return self._sums[0].reshape(-1)

    @cached_property
    def mask(self) -> Tensor:
        """(1, P) float32: 1 where counted."""
        return self.counted[None].float()

    @cached_property
    def p(self) -> Tensor:
        """(K, P): probabilities, 0 where ignored."""
        return self.log_p.exp() * self.mask

    @cached_property
    def onehot(self) -> Tensor:
        """(K, P) float32: 1 at the true class, 0 where ignored."""
        classes = torch.arange(self.logits.shape[1], device=self.target.device)[:, None]
        return ((self.target == classes) & self.counted).float()

    @cached_property
    def truth(self) -> Tensor:
        """(K,) float32: pixels of each class, in all processes."""
        return sum_over_ranks(self.onehot.sum(1))

    @cached_property
    def hits(self) -> Tensor:
        """(K,): the sum of a class's probability over the pixels that are of it, in all processes."""
        return sum_over_ranks(self.onehot @ torch.exp(-self.nll))

    @cached_property
    def mass(self) -> Tensor:
        """(K,): the sum of a class's probability over the counted pixels, in all processes."""
        return sum_over_ranks(self._sums[1])

    def weighted_mean(self, values: Tensor, weight: Tensor) -> Tensor:
        """Of values by weights of their shape; 0 where no weight is."""
        return sum_over_ranks((values * weight).sum()) / sum_over_ranks(weight.sum()).clamp_min(1e-12)

    def mean_over_present(self, values: Tensor) -> Tensor:
        """Of (K,) values, over the classes that the labels hold; 0 where they hold none."""
        present = (self.truth > 0).to(values.dtype)
        return (values * present).sum() / present.sum().clamp_min(1)


class SetPixels(Pixels):
    """A batch where classes overlap: whether a pixel is of a class is a question of its own, answered by a sigmoid.

    labels: sets of classes (`segpipe.labels.Overlapping`). onehot holds as many ones as a pixel has classes. nll and weight are
    (K, P): of the right answer about each class, and of each class, 0 where ignored.
    """

    def __init__(self, logits: Tensor, labels: Tensor, class_weights: Tensor) -> None:
        self.labels, self.class_weights = labels, class_weights
        self.scores = logits.movedim(1, 0).reshape(logits.shape[1], -1).float()
        self.flat = labels.reshape(1, -1).long()
        self.counted = self.flat[0] != IGNORE
        self.weight = class_weights[:, None] * self.mask

    @cached_property
    def onehot(self) -> Tensor:
        """(K, P) float32: 1 for each class of a pixel, 0 where ignored."""
        bits = torch.arange(len(self.scores) - 1, device=self.flat.device)[:, None]
        return torch.cat([self.flat == 0, (self.flat >> bits) & 1]).float() * self.mask

    @cached_property
    def nll(self) -> Tensor:
        """(K, P): binary cross entropy; of "no" where ignored."""
        return F.binary_cross_entropy_with_logits(self.scores, self.onehot, reduction="none")

    @cached_property
    def p(self) -> Tensor:
        """(K, P): probabilities, 0 where ignored."""
        return self.scores.sigmoid() * self.mask

    @cached_property
    def hits(self) -> Tensor:
        """(K,): the sum of a class's probability over the pixels that have it, in all processes."""
        return sum_over_ranks((self.p * self.onehot).sum(1))

    @cached_property
    def mass(self) -> Tensor:
        """(K,): the sum of a class's probability over the counted pixels, in all processes."""
        return sum_over_ranks(self.p.sum(1))

    @cached_property
    def spread(self) -> Tensor:
        """(K, P): binary cross entropy by weight, yes and no being equally right."""
        return (F.softplus(self.scores) - self.scores / 2) * self.weight

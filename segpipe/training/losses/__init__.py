"""Cross entropy and Dice in one pass over the logits, blind to pixels that count nowhere."""

from __future__ import annotations

import torch
from torch import Tensor

from segpipe.samples import IGNORE


class SegmentationLoss(torch.nn.Module):
    """``cross entropy + dice_weight * (1 - soft Dice)``; pixels labelled `IGNORE` count in neither.

    Cross entropy is the mean over pixels, weighted by the class of each pixel. Dice (Milletari, Navab, Ahmadi 2016,
    arXiv:1606.04797, with plain sums in the denominator) is taken for each class over the whole batch and averaged over
    the classes that the batch's labels hold. A batch without a single counted pixel costs 0.
    """

    class_weights: Tensor

    def __init__(self, class_weights: list[float], dice_weight: float) -> None:
        super().__init__()
        self.register_buffer("class_weights", torch.tensor(class_weights, dtype=torch.float32), persistent=False)
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits: (N, K, H, W), any floating dtype; labels: (N, H, W), integer class ids and `IGNORE`. A float32 scalar."""
        n_classes = logits.shape[1]
        # Classes last: a view where the network runs in channels_last, and every reduction below runs along memory.
        log_p = logits.permute(0, 2, 3, 1).reshape(-1, n_classes).float().log_softmax(1)
        flat = labels.reshape(-1).long()
        counted = flat != IGNORE
        target = torch.where(counted, flat, 0)
        weight = torch.where(counted, self.class_weights[target], 0.0)
        nll = -log_p.gather(1, target[:, None])[:, 0]
        loss = (nll * weight).sum() / weight.sum().clamp_min(1e-12)
        if self.dice_weight:
            loss = loss + self.dice_weight * _dice(log_p, target, counted)
        return loss


def _dice(log_p: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the classes present. log_p: (P, K); target: (P,), in 0..K-1; counted: (P,), bool."""
    mask = counted[:, None].to(log_p.dtype)
    p = log_p.exp() * mask
    onehot = torch.zeros_like(p).scatter_(1, target[:, None], mask)
    overlap, total, truth = (p * onehot).sum(0), p.sum(0) + onehot.sum(0), onehot.sum(0)
    present = (truth > 0).to(p.dtype)
    dice = 2 * overlap / total.clamp_min(1e-12)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1)

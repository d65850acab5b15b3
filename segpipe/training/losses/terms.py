"""The terms of the loss as functions of a batch: ``term(pixels, options) -> scalar``, 0 if no pixel counts.

If classes overlap (`OverlappingPixels`), cross entropies are binary, and means are taken over pixels and classes.

None of them copies a number from the device, so that training never waits for it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segpipe.config.losses import CrossEntropyTerm, DiceTerm, FocalTerm, LovaszTerm, TopKTerm, TverskyTerm
from segpipe.training.distributed.process_group import gather_over_ranks, rank, sum_over_ranks, world_size
from segpipe.training.losses.pixels import Pixels


def cross_entropy(pixels: Pixels, options: CrossEntropyTerm) -> Tensor:
    """Compute the mean over pixels, weighted by class. Label smoothing: Szegedy et al. 2016, arXiv:1512.00567."""
    loss = pixels.weighted_mean(pixels.nll, pixels.weight)
    if not options.label_smoothing:
        return loss
    smooth = sum_over_ranks(pixels.smoothed_nll.sum()) / sum_over_ranks(pixels.weight.sum()).clamp_min(1e-12)
    return (1 - options.label_smoothing) * loss + options.label_smoothing * smooth


def dice(pixels: Pixels, _: DiceTerm) -> Tensor:
    """Compute 1 - soft Dice of each class over the whole batch, averaged over the classes that occur in the labels.

    Milletari, Navab, Ahmadi 2016, arXiv:1606.04797, with plain sums in the denominator.
    """
    total = pixels.mass + pixels.truth
    return pixels.mean_over_present(1 - 2 * pixels.hits / total.clamp_min(1e-12))


def tversky(pixels: Pixels, options: TverskyTerm) -> Tensor:
    """Compute 1 - Tversky index of each class over the whole batch, averaged like Dice. Salehi et al. 2017, arXiv:1706.05721."""
    hits, false_positive, false_negative = pixels.hits, pixels.mass - pixels.hits, pixels.truth - pixels.hits
    total = hits + options.false_positive * false_positive + options.false_negative * false_negative
    return pixels.mean_over_present(1 - hits / total.clamp_min(1e-12))


def focal(pixels: Pixels, options: FocalTerm) -> Tensor:
    """Compute the mean over pixels of ``(1 - p)^gamma * -log p``, weighted by class. Lin et al. 2017, arXiv:1708.02002."""
    # -expm1 is exact for p near 1; the floor keeps the gradient finite there for gamma < 1.
    modulation = (-torch.expm1(-pixels.nll)).clamp_min(1e-6) ** options.gamma
    return pixels.weighted_mean(modulation * pixels.nll, pixels.weight)


def top_k(pixels: Pixels, options: TopKTerm) -> Tensor:
    """Compute the weighted mean of -log p over the hardest share of the counted pixels, and over those below a probability.

    Wu, Shen, van den Hengel 2016, arXiv:1605.06457 (top k); Shrivastava et al. 2016, arXiv:1604.03540 (hard examples).
    The hardest pixels are those of all processes.
    """
    counted = pixels.counted.expand_as(pixels.nll)
    hardness = torch.where(counted, pixels.nll.detach(), -1.0)
    all_hardness = gather_over_ranks(hardness.reshape(-1), fill=-1.0)
    hardest = all_hardness.topk(math.ceil(options.share * all_hardness.numel())).values
    count = (sum_over_ranks(counted.sum()) * options.share).ceil().long().clamp(1, len(hardest))
    limit = hardest.gather(0, count[None] - 1)
    if options.threshold is not None:
        limit = limit.clamp_max(-math.log(options.threshold))
    return pixels.weighted_mean(pixels.nll, pixels.weight * (hardness >= limit))


def lovasz(pixels: Pixels, _: LovaszTerm) -> Tensor:
    """Compute the Lovász-softmax over the whole batch, averaged over the classes present. Berman et al. 2018, arXiv:1705.08790.

    Ignored pixels have an error of 0, so that they are sorted last and contribute nothing. If several processes train, each sorts the
    pixels of all of them for its share of the classes.
    """
    own_classes = slice(rank(), None, world_size())
    all_errors, all_truth = gather_over_ranks((pixels.onehot - pixels.p).abs()), gather_over_ranks(pixels.onehot)
    errors, order = all_errors[own_classes].sort(dim=1, descending=True)  # (K, P)
    truth = all_truth[own_classes].gather(1, order).long()
    position = torch.arange(1, truth.shape[1] + 1, device=truth.device)
    remaining = truth.sum(1, keepdim=True) - truth.cumsum(1)
    jaccard = 1 - remaining.to(errors.dtype) / (remaining + position)
    gradient = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(jaccard[:, :1]))
    present = (truth.sum(1) > 0).to(errors.dtype)
    return sum_over_ranks(((errors * gradient).sum(1) * present).sum()) / sum_over_ranks(present.sum()).clamp_min(1)

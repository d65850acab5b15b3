"""The quantities that most terms of the loss need of a softmax over classes, in one pass forward and one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_MAX_NUMBERS = 1 << 17
"""Logits that a CPU processes at once, so that intermediate results stay in its cache."""


def softmax_sums(logits: Tensor, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the negative log-likelihood of each pixel and the summed probability of each class.

    On a CPU, log_softmax, exp and the sums, one after another over a whole batch, made a step with 11 classes 2 to 3 % longer.

    Args:
        logits: (N, K, ...), any floating dtype and memory format.
        target: (N, ...) int64, 0..K-1.
        counted: (N, ...) bool.

    Returns:
        (N, ...): -log of the true class's probability; and (K,): the sum of each class's probability over the counted pixels.
        Both float32, or float64 if the logits are.
    """
    nll, mass = _SoftmaxSums.apply(logits, target.flatten(1), counted.flatten(1))
    return nll.view(target.shape), mass


class _SoftmaxSums(torch.autograd.Function):
    """Processes the pixels of an image in rows of one class, as many as fit into the cache; on a GPU, all at once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        mask, rows = counted.to(dtype), logits.detach().flatten(2)
        nll, mass = torch.empty_like(mask), torch.zeros(logits.shape[1], dtype=dtype, device=logits.device)
        ctx.parts, p = _parts(rows), []
        for images, pixels in ctx.parts:
            log_p = rows[images, :, pixels].to(dtype, memory_format=torch.contiguous_format).log_softmax(1)
            nll[images, pixels] = -log_p.gather(1, target[images, None, pixels])[:, 0]
            p.append(log_p.exp_())
            mass += (p[-1] @ mask[images, pixels, None]).sum((0, 2))
        ctx.save_for_backward(logits, target, mask, *p)
        return nll, mass

    @staticmethod
    def backward(ctx: Any, nll_gradient: Tensor, mass_gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, target, mask, *p = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        rows = gradient.flatten(2)
        for (images, pixels), part_p in zip(ctx.parts, p, strict=True):
            nll_part, counted = nll_gradient[images, pixels], mask[images, pixels]
            mean = (
                mass_gradient @ part_p
            ) * counted  # the softmax removes what the gradients of probabilities have in common
            part = torch.addcmul((nll_part - mean)[:, None], mass_gradient[:, None], counted[:, None]).mul_(part_p)
            rows[images, :, pixels] = part.scatter_add_(1, target[images, None, pixels], -nll_part[:, None])
        return gradient, None, None


def _parts(rows: Tensor) -> list[tuple[slice, slice]]:
    """Return slices of images and of pixels that cover rows (N, K, P)."""
    count, classes, pixels = rows.shape
    if rows.device.type != "cpu":
        return [(slice(count), slice(pixels))]
    step = max(1, _MAX_NUMBERS // classes)
    return [(slice(n, n + 1), slice(start, start + step)) for n in range(count) for start in range(0, pixels, step)]

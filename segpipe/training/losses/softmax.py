"""What most terms of the loss want of a softmax over classes, in one pass over the logits and one back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_NUMBERS = 1 << 17
"""Of logits that a processor takes at once: what is made of them on the way stays in its cache."""


def softmax_sums(logits: Tensor, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """-log of the true class's probability at each pixel, (N, ...), and the sum of each class's probability over the counted pixels,
    (K,); float32, or float64 where the logits are.

    logits: (N, K, ...), any floating dtype and memory format; target: (N, ...) int64, in 0..K-1; counted: (N, ...) bool. On a
    processor, log_softmax, exp and the sums, one after another over a whole batch, made a step with 11 classes 2 to 3 % longer.
    """
    nll, mass = _SoftmaxSums.apply(logits, target.flatten(1), counted.flatten(1))
    return nll.view(target.shape), mass


class _SoftmaxSums(torch.autograd.Function):
    """Pixels of an image in a row for each class, as many at once as the cache holds; on a GPU, all at once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(logits.dtype, torch.float32)
        mask, rows = counted.to(kind), logits.detach().flatten(2)
        nll, mass = torch.empty_like(mask), torch.zeros(logits.shape[1], dtype=kind, device=logits.device)
        ctx.parts, p = _parts(rows), []
        for images, pixels in ctx.parts:
            log_p = rows[images, :, pixels].to(kind, memory_format=torch.contiguous_format).log_softmax(1)
            nll[images, pixels] = -log_p.gather(1, target[images, None, pixels])[:, 0]
            p.append(log_p.exp_())
            mass += (p[-1] @ mask[images, pixels, None]).sum((0, 2))
        ctx.save_for_backward(logits, target, mask, *p)
        return nll, mass

    @staticmethod
    def backward(ctx: Any, of_nll: Tensor, of_mass: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        logits, target, mask, *p = ctx.saved_tensors
        found = torch.empty_like(logits)
        rows = found.flatten(2)
        for (images, pixels), own in zip(ctx.parts, p, strict=True):
            slope, counted = of_nll[images, pixels], mask[images, pixels]
            mean = (of_mass @ own) * counted  # what the probabilities' slopes have in common, softmax takes out
            part = torch.addcmul((slope - mean)[:, None], of_mass[:, None], counted[:, None]).mul_(own)
            rows[images, :, pixels] = part.scatter_add_(1, target[images, None, pixels], -slope[:, None])
        return found, None, None


def _parts(rows: Tensor) -> list[tuple[slice, slice]]:
    """Slices of images and of pixels that cover rows (N, K, P)."""
    count, classes, pixels = rows.shape
    if rows.device.type != "cpu":
        return [(slice(count), slice(pixels))]
    step = max(1, _NUMBERS // classes)
    return [(slice(n, n + 1), slice(start, start + step)) for n in range(count) for start in range(0, pixels, step)]
